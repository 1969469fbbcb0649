//! What a sidecar is doing, as one word and a sentence.

use coterie_core::Rejection;

/// The state of a sidecar. It never blocks the process's start: the local API answers in every state.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Opening its directory and listening.
    Starting,
    /// The management group is not formed, or has no majority, and these members were not heard of yet.
    WaitingForMembers {
        /// Their names.
        missing: Vec<String>,
    },
    /// No management group has been found yet, or it has not recorded this member (D22).
    WaitingForManagementGroup {
        /// What it said, or why it said nothing; empty as long as nobody was asked.
        reason: String,
    },
    /// The data directory is not the one that the cluster knows (D14). This process never votes.
    Refused(Rejection),
    /// Serving.
    Running,
    /// Going down in good order.
    Draining,
}

impl State {
    /// The stable word for status and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::WaitingForMembers { .. } => "waiting_for_members",
            Self::WaitingForManagementGroup { reason: _ } => "waiting_for_management_group",
            Self::Refused(_) => "refused",
            Self::Running => "running",
            Self::Draining => "draining",
        }
    }

    /// All words, for metrics.
    pub const LABELS: &[&str] =
        &["starting", "waiting_for_members", "waiting_for_management_group", "refused", "running", "draining"];

    /// A sentence for people; empty when there is nothing to explain.
    pub fn reason(&self) -> String {
        match self {
            Self::Starting | Self::Running => String::new(),
            Self::WaitingForMembers { missing } => format!("not heard of yet: {}", missing.join(", ")),
            Self::WaitingForManagementGroup { reason } if reason.is_empty() => {
                "no member that leads the management group has answered yet".to_owned()
            }
            Self::WaitingForManagementGroup { reason } => reason.clone(),
            Self::Refused(rejection) => rejection.message.clone(),
            Self::Draining => "leaderships are handed over and memberships end".to_owned(),
        }
    }
}
