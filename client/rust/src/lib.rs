//! The Rust SDK of Coterie: groups, membership and leader election, through the sidecar on this machine.
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
//! | what can go wrong | [`Error`], [`Refusal`] |
//!
//! What this crate does not do: it never repeats a write by itself (a write whose fate is not known says so, see
//! [`Error::Unknown`]), it reads no configuration but the two environment variables of [`Client::from_env`], and it
//! trusts no clock but the one that runs on while the machine is suspended. Only watches are resumed by themselves.

pub use client::{Client, ClientOptions, RequestId, Status, StatusMember, StatusPartition, StatusPartitionGroup};
pub use clock::Deadline;
pub use error::{Error, Refusal, Retry};
pub use group::{Group, JoinOptions, JoinPresence};
pub use member::{Leadership, Member};
pub use types::{
    Consistency, Event, EventKind, GroupConfig, GroupInfo, LeaveReason, MemberId, MemberInfo, Presence, SessionState,
    Term,
};
pub use view::View;
pub use watch::{Elected, Left, Listener, Watch};

mod client;
mod clock;
mod error;
mod group;
mod member;
mod types;
mod view;
mod watch;
