//! Whose an object is that has a name which the operator uses. Only the Cluster's own are changed or deleted.
//!
//! | what is there | standing | what follows |
//! |---|---|---|
//! | nothing | [`Free`](Standing::Free) | it is made, if there still is nothing then |
//! | what this Cluster controls, by its uid | [`Own`](Standing::Own) | it is changed, if it still is as it was read |
//! | what a Cluster of this name and another uid controls | [`Left`](Standing::Left) | it is waited for: that Cluster was deleted, and Kubernetes removes what it owned |
//! | anything else | [`Foreign`](Standing::Foreign) | it is never touched, and a condition names it |

use coterie_crds::Cluster;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::status::Applied;

/// The version that makes a server-side apply create an object or fail. A version makes an apply conditional on what is
/// there, nothing that is there has this one (the first write to etcd is 2), and it is not looked at where nothing is. The last
/// is behaviour and no promise; ARCHITECTURE.md says what follows where it is otherwise.
pub const VERSION_OF_NONE: &str = "1";

/// A Cluster, as what belongs to it refers to it. It is known also when the spec cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its identity in Kubernetes.
    pub uid: String,
}

impl From<&ObjectMeta> for Owner {
    /// Of a Cluster's metadata.
    fn from(metadata: &ObjectMeta) -> Self {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        Self { name: text(&metadata.name), namespace: text(&metadata.namespace), uid: text(&metadata.uid) }
    }
}

impl From<&Cluster> for Owner {
    fn from(cluster: &Cluster) -> Self {
        Self::from(&cluster.metadata)
    }
}

/// Whose an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is none.
    Free,
    /// The Cluster's.
    Own,
    /// An earlier Cluster's of this name.
    Left,
    /// Somebody else's: who controls it, if that is known.
    Foreign(Option<String>),
}

/// Whose the object is whose metadata was read.
pub fn standing(owner: &Owner, there: Option<&ObjectMeta>) -> Standing {
    let Some(metadata) = there else { return Standing::Free };
    let references = metadata.owner_references.as_deref().unwrap_or_default();
    let Some(controller) = references.iter().find(|reference| reference.controller == Some(true)) else {
        return Standing::Foreign(None);
    };
    if controller.uid == owner.uid {
        Standing::Own
    } else if is_cluster(controller) && controller.name == owner.name {
        Standing::Left
    } else {
        Standing::Foreign(Some(format!("{} {}", controller.kind, controller.name)))
    }
}

fn is_cluster(reference: &OwnerReference) -> bool {
    let group = reference.api_version.split('/').next().unwrap_or_default();
    reference.kind == "Cluster" && group == coterie_crds::GROUP
}

/// The version to apply over, or what to report instead of applying.
///
/// # Errors
/// When the object is not the Cluster's.
pub fn version(owner: &Owner, kind: &str, name: &str, there: Option<&ObjectMeta>) -> Result<String, Applied> {
    match standing(owner, there) {
        Standing::Free => Ok(VERSION_OF_NONE.to_owned()),
        Standing::Own => Ok(there.and_then(|metadata| metadata.resource_version.clone()).unwrap_or_default()),
        Standing::Left => Err(Applied::Leaving(format!("{kind} {name}"))),
        Standing::Foreign(by) => {
            let by = by.map(|by| format!(" but by {by}")).unwrap_or_default();
            Err(Applied::Taken(format!(
                "{kind} {name} exists and is not owned by this Cluster{by}; rename one or delete it"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner { name: "orders".to_owned(), namespace: "shop".to_owned(), uid: "u-1".to_owned() }
    }

    /// An object that one reference controls: API version, kind, name, uid.
    fn by([api_version, kind, name, uid]: [&str; 4], controller: Option<bool>) -> ObjectMeta {
        let reference = OwnerReference {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            controller,
            block_owner_deletion: None,
        };
        let version = Some("42".to_owned());
        ObjectMeta { owner_references: Some(vec![reference]), resource_version: version, ..ObjectMeta::default() }
    }

    fn check(there: Option<ObjectMeta>, expected: Result<&str, Applied>) {
        let version = version(&owner(), "ConfigMap", "orders-configuration", there.as_ref());
        assert_eq!(version, expected.map(str::to_owned), "{there:?}");
    }

    #[test]
    fn only_what_the_cluster_controls_is_changed_and_only_as_it_was_read() {
        check(None, Ok(VERSION_OF_NONE));
        check(Some(by(["coterie.dev/v1alpha1", "Cluster", "orders", "u-1"], Some(true))), Ok("42"));
    }

    #[test]
    fn what_is_somebody_elses_is_named_with_the_fix() {
        let taken = |by: &str| {
            Err(Applied::Taken(format!(
                "ConfigMap orders-configuration exists and is not owned by this Cluster{by}; rename one or delete it"
            )))
        };
        check(Some(ObjectMeta::default()), taken(""));
        // Named as an owner, but somebody else may control it.
        check(Some(by(["coterie.dev/v1alpha1", "Cluster", "orders", "u-1"], None)), taken(""));
        check(Some(by(["apps/v1", "Deployment", "web", "u-7"], Some(true))), taken(" but by Deployment web"));
        check(
            Some(by(["coterie.dev/v1alpha1", "Cluster", "other", "u-7"], Some(true))),
            taken(" but by Cluster other"),
        );
        check(Some(by(["other.dev/v1", "Cluster", "orders", "u-7"], Some(true))), taken(" but by Cluster orders"));
    }

    #[test]
    fn what_a_deleted_cluster_of_the_name_left_is_waited_for() {
        let leaving = Err(Applied::Leaving("ConfigMap orders-configuration".to_owned()));
        check(Some(by(["coterie.dev/v1alpha1", "Cluster", "orders", "u-0"], Some(true))), leaving);
    }
}
