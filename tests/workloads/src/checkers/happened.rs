//! What watchers of a group were told, as far as it concerns who leads.

use std::collections::BTreeMap;

use super::watches::{Place, Stretch};

/// What happened in a group, as its events say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A member joined.
    Joined(u64),
    /// It left.
    Left(u64),
    /// It leads in a term.
    Elected {
        /// The term.
        term: u64,
        /// The member.
        leader: u64,
    },
    /// It leads no more.
    Vacated(u64),
    /// The group is gone.
    Deleted,
}

/// What happened in one stretch of what a watcher was told; `read` reads what it was told of an event.
pub fn of_stretch(stretch: &Stretch, read: impl Fn(&str) -> Option<Happened>) -> BTreeMap<Place, Happened> {
    stretch.events.iter().filter_map(|(place, what)| Some((*place, read(what)?))).collect()
}
