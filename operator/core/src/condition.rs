//! Conditions, and the events that their edges make.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Whether something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody could say.
    Unknown,
}

impl Truth {
    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// One condition before it has a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its type, for example `Ready`.
    pub kind: &'static str,
    /// Whether it holds.
    pub truth: Truth,
    /// A word from a finite list.
    pub reason: &'static str,
    /// A sentence, with what to do next where something is wrong.
    pub message: String,
}

impl Claim {
    /// A claim.
    pub fn new(kind: &'static str, truth: impl Into<Truth>, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, truth: truth.into(), reason, message: message.into() }
    }
}

/// Bytes of a condition's message: the API server's bound.
pub const MESSAGE_BYTES_MAX: usize = 32_768;
/// Bytes of an event's note: the API server's bound.
pub const NOTE_BYTES_MAX: usize = 1_024;

/// Claims as conditions. One that was true before keeps the time of its last change.
pub fn conditions(
    claims: Vec<Claim>,
    previous: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let condition = |Claim { kind, truth, reason, message }: Claim| {
        let before = previous.iter().find(|condition| condition.type_ == kind);
        let since = before
            .filter(|condition| condition.status == truth.as_str())
            .map(|condition| condition.last_transition_time.clone());
        Condition {
            type_: kind.to_owned(),
            status: truth.as_str().to_owned(),
            reason: reason.to_owned(),
            message: cut(message, MESSAGE_BYTES_MAX),
            observed_generation: generation,
            last_transition_time: since.unwrap_or(Time(now)),
        }
    };
    claims.into_iter().map(condition).collect()
}

/// Whether the condition of this type is true.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// What an event says of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something happened.
    Normal,
    /// A person may want to look.
    Warning,
}

/// An event to publish on the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// How it is meant.
    pub severity: Severity,
    /// A word from a finite list.
    pub reason: String,
    /// A sentence.
    pub note: String,
}

impl Event {
    /// Something happened.
    pub fn normal(reason: impl Into<String>, note: impl Into<String>) -> Self {
        Self { severity: Severity::Normal, reason: reason.into(), note: cut(note.into(), NOTE_BYTES_MAX) }
    }

    /// A person may want to look.
    pub fn warning(reason: impl Into<String>, note: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, reason: reason.into(), note: cut(note.into(), NOTE_BYTES_MAX) }
    }
}

/// The events of what changed between two lists of conditions. `good` says which status of a type is as it should be: such a
/// condition is news when its status changed, any other also when its reason did. Two that tell the same are one event.
///
/// The status is written after the events, so a restart of the operator repeats at most the last ones.
pub fn changes(previous: &[Condition], next: &[Condition], good: impl Fn(&str) -> Truth) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for condition in next {
        let before = previous.iter().find(|other| other.type_ == condition.type_);
        let is_good = condition.status == good(&condition.type_).as_str();
        let is_news = match before {
            Some(before) => before.status != condition.status || (!is_good && before.reason != condition.reason),
            None => !is_good,
        };
        let event = if is_good { Event::normal } else { Event::warning };
        let event = event(condition.reason.clone(), condition.message.clone());
        if is_news && !events.contains(&event) {
            events.push(event);
        }
    }
    events
}

fn cut(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(truth: bool, reason: &'static str, previous: &[Condition], second: i64) -> Vec<Condition> {
        let now = Timestamp::from_second(second).expect("a time");
        conditions(vec![Claim::new("Ready", truth, reason, "sentence")], previous, Some(1), now)
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let first = list(false, "A", &[], 1);
        let second = list(false, "B", &first, 2);
        assert_eq!(second[0].last_transition_time, first[0].last_transition_time);
        let third = list(true, "C", &second, 3);
        assert_ne!(third[0].last_transition_time, second[0].last_transition_time);
    }

    #[test]
    fn events_come_at_edges_only() {
        let good = |_: &str| Truth::True;
        let bad = list(false, "A", &[], 1);
        assert_eq!(changes(&[], &bad, good), [Event::warning("A", "sentence")]);
        assert_eq!(changes(&bad, &bad, good), []);
        let other = list(false, "B", &bad, 2);
        assert_eq!(changes(&bad, &other, good), [Event::warning("B", "sentence")]);
        let right = list(true, "Ready", &other, 3);
        assert_eq!(changes(&other, &right, good), [Event::normal("Ready", "sentence")]);
        assert_eq!(changes(&right, &right, good), []);
    }

    #[test]
    fn long_notes_are_cut_between_characters() {
        let note = "ä".repeat(NOTE_BYTES_MAX);
        assert!(Event::normal("A", note).note.len() <= NOTE_BYTES_MAX);
    }
}
