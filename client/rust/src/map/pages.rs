//! The entries of a map, page by page.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use coterie_proto::v1;
use coterie_proto::v1::operation::Request;
use coterie_proto::v1::result::Response;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt};

use super::{Entry, Map};
use crate::error::Error;
use crate::types::{Consistency, Revision};

/// Some entries of a map, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries; none on the only page of a map that has none.
    pub entries: Vec<Entry>,
    /// Of the partition, when this page was read.
    pub revision: Revision,
    /// For stale answers: how long ago the replica last heard from its leader; else zero.
    pub stale_for: Duration,
}

/// The pages of a map, also as a [`Stream`]; made by [`Map::list`]. The next page is asked for when it is wanted. It ends
/// after the last page, and after an error.
///
/// ```no_run
/// # async fn example(map: coterie_client::Map) -> Result<(), coterie_client::Error> {
/// let mut pages = map.list("user/").page_size(1_000);
/// while let Some(page) = pages.next().await {
///     for entry in page?.entries {
///         println!("{}: {} bytes", entry.key, entry.value.len());
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Pages {
    map: Map,
    prefix: String,
    limit: u32,
    consistency: Consistency,
    next: Next,
}

enum Next {
    /// After this key.
    After(String),
    /// It is asked for.
    Asked(BoxFuture<'static, Result<v1::ListEntriesResponse, Error>>),
    End,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("map", &self.map.name()).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Pages {
    pub(super) fn new(map: Map, prefix: String) -> Self {
        let (limit, consistency) = (0, Consistency::Linearizable);
        Self { map, prefix, limit, consistency, next: Next::After(String::new()) }
    }

    /// The most entries of a page, 1 to 1,000; 100 by default. A page ends earlier after 1 MiB.
    #[must_use]
    pub fn page_size(mut self, entries: u32) -> Self {
        self.limit = entries;
        self
    }

    /// How fresh each page must be; linearizable by default.
    #[must_use]
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    /// The next page; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Page, Error>> {
        StreamExt::next(self).await
    }

    /// All entries of all pages that are left, in memory.
    pub async fn all(mut self) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        while let Some(page) = self.next().await {
            entries.append(&mut page?.entries);
        }
        Ok(entries)
    }

    fn ask(&self, after: String) -> BoxFuture<'static, Result<v1::ListEntriesResponse, Error>> {
        let (map, partition_group) = self.map.address();
        let consistency = v1::Consistency::from(self.consistency).into();
        let (prefix, limit) = (self.prefix.clone(), self.limit);
        let request = v1::ListEntriesRequest { map, partition_group, prefix, after, limit, consistency };
        let operations = self.map.client().operations().clone();
        Box::pin(async move {
            match operations.read(Request::List(request)).await? {
                Response::List(page) => Ok(page),
                _ => Err(Error::Protocol { missing: "page" }),
            }
        })
    }
}

impl Stream for Pages {
    type Item = Result<Page, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match &mut this.next {
                Next::After(after) => {
                    let after = std::mem::take(after);
                    this.next = Next::Asked(this.ask(after));
                }
                Next::Asked(asked) => {
                    let Poll::Ready(answer) = asked.as_mut().poll(context) else { return Poll::Pending };
                    this.next = Next::End;
                    let v1::ListEntriesResponse { entries, more, revision, stale_ms } = match answer {
                        Ok(page) => page,
                        Err(error) => return Poll::Ready(Some(Err(error))),
                    };
                    if let Some(last) = entries.last().filter(|_| more) {
                        this.next = Next::After(last.key.clone());
                    }
                    return Poll::Ready(Some(Ok(Page {
                        entries: entries.into_iter().map(Into::into).collect(),
                        revision: Revision(revision),
                        stale_for: Duration::from_millis(stale_ms),
                    })));
                }
                Next::End => return Poll::Ready(None),
            }
        }
    }
}
