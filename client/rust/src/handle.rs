//! What all handles have in common.

use std::sync::Arc;

use crate::client::{Client, RequestId};

/// Which primitive a handle is of, whose it is, and what its next write is known by.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) client: Client,
    pub(crate) name: Arc<str>,
    partition_group: Arc<str>,
    /// Given by the one who repeats a write.
    pub(crate) request: Option<RequestId>,
}

impl Handle {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self { client, name: name.into(), partition_group: "".into(), request: None }
    }

    /// The same name in another partition group (D15).
    pub(crate) fn in_partition_group(&self, partition_group: &str) -> Self {
        Self { partition_group: partition_group.into(), ..self.clone() }
    }

    pub(crate) fn with_request(&self, request: RequestId) -> Self {
        Self { request: Some(request), ..self.clone() }
    }

    /// Name and partition group, for requests.
    pub(crate) fn address(&self) -> (String, String) {
        (self.name.to_string(), self.partition_group.to_string())
    }
}
