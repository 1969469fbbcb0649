//! Between what the core knows and what the wire says. Exhaustive on purpose: a new field or event does not compile until
//! it is on the wire.

use std::collections::BTreeMap;

use coterie_core::command::{
    Entry, Event, EventKind, GroupConfig, GroupEvent, GroupView, LeaveReason, MemberView, Presence,
};
use coterie_core::{MemberId, Term};
use coterie_proto::v1;

use crate::lineage::Lineage;
use crate::presence::SelfState;
use crate::sessions::SessionState;

/// How fresh an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// As of a moment between request and answer.
    Linearizable,
    /// The same, if clocks run as they should.
    Leased,
    /// What a replica knew that had not heard of its leader for this long.
    Stale {
        /// In milliseconds.
        stale_ms: u64,
    },
}

/// A group.
pub fn group(view: &GroupView, partition_group: &str, freshness: Freshness) -> v1::Group {
    let GroupView { name, term, leader, releasing, members, config, config_revision, revision, last_event: _ } = view;
    let (consistency, stale_ms) = match freshness {
        Freshness::Linearizable => (v1::Consistency::Linearizable, 0),
        Freshness::Leased => (v1::Consistency::Leased, 0),
        Freshness::Stale { stale_ms } => (v1::Consistency::Stale, stale_ms),
    };
    v1::Group {
        name: name.0.clone(),
        partition_group: partition_group.to_owned(),
        term: term.0,
        leader: leader.map_or(0, |leader| leader.0),
        members: members.iter().map(|view| member(view, *leader)).collect(),
        config: Some(group_config(*config)),
        config_revision: config_revision.0,
        revision: revision.0,
        releasing: *releasing,
        consistency: consistency.into(),
        stale_ms,
    }
}

/// A member of a group that `leader` leads.
pub fn member(view: &MemberView, leader: Option<MemberId>) -> v1::Member {
    let MemberView { id, session: _, sidecar, metadata, zone, presence, joined_ms } = view;
    v1::Member {
        id: id.0,
        metadata: metadata.clone().into_iter().collect(),
        zone: zone.clone(),
        presence: v1::Presence::from(Wire(*presence)).into(),
        sidecar: sidecar.0.clone(),
        joined_revision: id.0,
        joined_ms: *joined_ms,
        leader: leader == Some(*id),
    }
}

/// The configuration of a group.
pub fn group_config(config: GroupConfig) -> v1::GroupConfig {
    let GroupConfig { release_timeout_ms, max_members } = config;
    v1::GroupConfig { release_timeout_ms: Some(release_timeout_ms), max_members: Some(max_members) }
}

/// A configuration from the wire: what it does not say stays as in `present`.
pub fn config_over(asked: &v1::GroupConfig, present: GroupConfig) -> GroupConfig {
    let v1::GroupConfig { release_timeout_ms, max_members } = asked;
    GroupConfig {
        release_timeout_ms: release_timeout_ms.unwrap_or(present.release_timeout_ms),
        max_members: max_members.unwrap_or(present.max_members),
    }
}

/// A value of the core on its way to the wire.
pub struct Wire<T>(pub T);

impl From<Wire<Presence>> for v1::Presence {
    fn from(Wire(presence): Wire<Presence>) -> Self {
        match presence {
            Presence::Stream => Self::Stream,
            Presence::Lease => Self::Lease,
            Presence::Probe => Self::Probe,
        }
    }
}

impl From<Wire<SessionState>> for v1::SessionState {
    fn from(Wire(state): Wire<SessionState>) -> Self {
        match state {
            SessionState::Live => Self::Live,
            SessionState::Suspended => Self::Suspended,
            SessionState::Lost => Self::Lost,
        }
    }
}

/// The word of a reason to leave.
pub fn leave_reason(reason: LeaveReason) -> &'static str {
    match reason {
        LeaveReason::Left => "left",
        LeaveReason::SessionExpired => "session_expired",
        LeaveReason::SessionClosed => "session_closed",
        LeaveReason::GroupDeleted => "group_deleted",
    }
}

/// An event of this life of its partition. `leader` is who leads as far as the watch knows.
pub fn event(event: &Event, lineage: Lineage, leader: Option<MemberId>) -> v1::GroupEvent {
    use v1::group_event::Kind;
    let Event { id, of: _, kind } = event;
    let EventKind::Group(kind) = kind else { return v1::GroupEvent::default() };
    let kind = match kind {
        GroupEvent::Joined(view) => Kind::Joined(member(view, leader)),
        GroupEvent::Left { member, reason } => {
            Kind::Left(v1::MemberLeft { member: member.0, reason: leave_reason(*reason).to_owned() })
        }
        GroupEvent::Updated(view) => Kind::Updated(member(view, leader)),
        GroupEvent::Term(term) => Kind::Term(term.0),
        GroupEvent::Elected { term, leader } => Kind::Elected(v1::Elected { term: term.0, leader: leader.0 }),
        GroupEvent::Vacated { term, leader } => Kind::Vacated(v1::Vacated { term: term.0, leader: leader.0 }),
        GroupEvent::Releasing { term, leader, timeout_ms, reason } => Kind::Releasing(v1::Releasing {
            term: term.0,
            leader: leader.0,
            timeout_ms: *timeout_ms,
            reason: reason.clone(),
        }),
        GroupEvent::Config { config, config_revision } => {
            Kind::Config(v1::ConfigChanged { config: Some(group_config(*config)), config_revision: config_revision.0 })
        }
        GroupEvent::Deleted => Kind::Deleted(v1::Deleted {}),
    };
    v1::GroupEvent { id: lineage.id(*id), revision: id.revision.0, kind: Some(kind) }
}

/// An entry of a map. The value is shared.
pub fn entry(key: &str, entry: &Entry) -> v1::Entry {
    let Entry { value, revision } = entry;
    v1::Entry { key: key.to_owned(), value: value.clone(), revision: revision.0 }
}

/// What may be said at `now_ms` about a membership.
pub fn self_state(state: &SelfState, now_ms: u64) -> v1::SelfState {
    let SelfState { member, leads, term, valid_until_ms, session, releasing, elected_at: _ } = state;
    let valid_ms = valid_until_ms.saturating_sub(now_ms);
    let leads = *leads && valid_ms > 0;
    v1::SelfState {
        member: member.0,
        leads,
        term: term.0,
        valid_ms: if leads { valid_ms } else { 0 },
        session: v1::SessionState::from(Wire(*session)).into(),
        releasing: *releasing,
    }
}

/// A condition from the wire, where 0 says that there is none.
pub fn if_term(term: u64) -> Option<Term> {
    Some(term).filter(|term| *term != 0).map(Term)
}

/// Metadata from the wire, in order.
pub fn metadata(metadata: std::collections::HashMap<String, String>) -> BTreeMap<String, String> {
    metadata.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use coterie_core::{EventId, Revision};

    use super::*;

    fn view() -> GroupView {
        GroupView {
            name: "g".into(),
            term: Term(3),
            leader: Some(MemberId(7)),
            releasing: true,
            members: vec![MemberView {
                id: MemberId(7),
                session: coterie_core::SessionId(2),
                sidecar: "member-1".into(),
                metadata: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
                zone: "a".to_owned(),
                presence: Presence::Probe,
                joined_ms: 11,
            }],
            config: GroupConfig { release_timeout_ms: 9, max_members: 4 },
            config_revision: Revision(5),
            revision: Revision(8),
            last_event: EventId { revision: Revision(8), ordinal: 1 },
        }
    }

    #[test]
    fn s40_a_group_on_the_wire_says_who_leads_and_how_fresh_it_is() {
        let wire = group(&view(), "data", Freshness::Stale { stale_ms: 40 });
        assert_eq!((wire.term, wire.leader, wire.stale_ms), (3, 7, 40));
        assert_eq!(wire.consistency(), v1::Consistency::Stale);
        assert!(wire.members[0].leader);
        assert_eq!(wire.members[0].presence(), v1::Presence::Probe);
        assert_eq!(wire.members[0].joined_revision, 7);
    }

    #[test]
    fn s20_a_configuration_that_says_nothing_leaves_all_as_it_is() {
        let present = GroupConfig { release_timeout_ms: 9, max_members: 4 };
        assert_eq!(config_over(&v1::GroupConfig::default(), present), present);
        let asked = v1::GroupConfig { release_timeout_ms: Some(0), max_members: None };
        assert_eq!(config_over(&asked, present), GroupConfig { release_timeout_ms: 0, max_members: 4 });
    }

    #[test]
    fn s38_a_self_state_past_its_deadline_says_no() {
        let state = SelfState {
            member: MemberId(7),
            leads: true,
            term: Term(3),
            valid_until_ms: 100,
            session: SessionState::Suspended,
            releasing: false,
            elected_at: EventId::default(),
        };
        let before = self_state(&state, 60);
        assert!(before.leads && before.valid_ms == 40);
        let after = self_state(&state, 100);
        assert!(!after.leads && after.valid_ms == 0);
        assert_eq!(after.session(), v1::SessionState::Suspended);
    }
}
