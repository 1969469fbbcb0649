//! The Rust SDK of Coterie: groups, membership and leader election, maps and locks, through the sidecar on this machine.
//!
//! ```no_run
//! # async fn example() -> Result<(), coterie_client::Error> {
//! use coterie_client::{Client, JoinOptions};
//!
//! let client = Client::from_env()?;
//! let group = client.group("workers");
//! let member = group.join(JoinOptions::default()).await?;
//! let mut leadership = member.leadership();
//! loop {
//!     if let Some(term) = member.guard() {
//!         println!("member {} leads in term {term}", member.id());
//!     }
//!     if leadership.changed().await.is_err() {
//!         return Ok(()); // the membership ended
//!     }
//! }
//! # }
//! ```
//!
//! | what | where |
//! |---|---|
//! | the connection to the sidecar, and what belongs to this client alone | [`Client`], [`ClientOptions`] |
//! | one group: join, list, watch, configure | [`Group`], [`JoinOptions`], [`GroupInfo`] |
//! | a membership: who leads, until when, and how the session is | [`Member`], [`Leadership`], [`SessionState`] |
//! | changes, in order | [`Watch`], [`Event`], and [`Group::on_join`] and its siblings |
//! | a member list that keeps itself up to date | [`View`] |
//! | keys with values, compare-and-set, watches | [`Map`], [`Entry`], [`Pages`], [`MapWatch`] |
//! | a fair lock with a fencing token | [`Lock`], [`LockGuard`], [`Token`] |
//! | what can go wrong | [`Error`], [`Refusal`] |
//!
//! Operations on maps and locks of one client share one stream to the sidecar, so thousands may be under way at little cost:
//! clone the client, do not connect again. A write to a map or a lock whose fate is not known is repeated under the same
//! request id until its deadline, and applied once (D11). Watches are resumed by themselves.
//!
//! What this crate does not do: it never repeats a write to a group by itself (a write whose fate is not known says so, see
//! [`Error::Unknown`]), it reads no configuration but the two environment variables of [`Client::from_env`], and it
//! trusts no clock but the one that runs on while the machine is suspended.

pub use client::{Client, ClientOptions, RequestId, Status, StatusMember, StatusPartition, StatusPartitionGroup};
pub use clock::Deadline;
pub use error::{Error, Refusal, Retry};
pub use group::{Group, JoinOptions, JoinPresence};
pub use lock::{Lock, LockGuard, LockInfo, LossReason};
pub use map::{Changed, Entry, Found, Map, MapEvent, MapEventKind, MapWatch, Page, Pages, Part};
pub use member::{Leadership, Member};
pub use types::{
    Consistency, Event, EventKind, GroupConfig, GroupInfo, LeaveReason, MemberId, MemberInfo, Presence, Revision,
    SessionState, Term, Token,
};
pub use view::View;
pub use watch::{Elected, Left, Listener, Watch};

mod client;
mod clock;
mod error;
mod group;
mod handle;
mod lanes;
mod lock;
mod map;
mod member;
mod operations;
mod resume;
mod types;
mod view;
mod watch;
