//! Sessions: this sidecar's lease on each partition that it uses.
//!
//! [`holder`] is the side that holds them: it opens one session per partition, keeps it alive at the partition's leader
//! and says until when it counts. [`keeper`] is the side of the partition's leader: it keeps deadlines in memory, so idle
//! sessions write nothing to the log, and proposes what has run out. A holder counts from when it *sent* the keep-alive,
//! a keeper from when it *received* it, and a new leader gives every session a full time-out: so a holder stops vouching
//! for what it holds before anybody else can be granted it, given clocks whose rates differ by less than
//! [`RATE_MARGIN`]. A leader of a group that does not release in time is deposed only when its holder has said that it
//! knows, and the time that it named has passed.

pub mod holder;
pub mod keeper;

mod deadlines;

pub use holder::{Heard, Releases, Session, SessionState, SessionStatus, Sessions};

/// Of a session's time-out, the part that a holder leaves unused for clocks that run at different rates: a hundredth.
pub const RATE_MARGIN: u64 = 100;
