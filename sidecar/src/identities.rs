//! Who this member is to others: the identity in its data directory, or none.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use coterie_core::MemberName;
use coterie_store::directory::{Identity, KnownPeer};

/// Reads and updates the data directory's identity; absent for members without one.
pub trait Identities: Send + Sync + 'static {
    /// The identity now.
    fn identity(&self) -> Identity;
    /// Whether there is a log or a vote of the management group.
    fn has_log(&self) -> bool;
    /// Remembers, durably, what was seen of others.
    fn remember(&self, seen: BTreeMap<String, KnownPeer>) -> io::Result<()>;
}

/// The identity of a member without a volume: it has none, and remembers nothing.
pub struct Ephemeral(Mutex<Identity>);

impl Ephemeral {
    /// Of this member.
    pub fn new(cluster: &str, member: &MemberName) -> Self {
        Self(Mutex::new(Identity {
            version: 1,
            cluster: cluster.to_owned(),
            cluster_id: None,
            member: member.0.clone(),
            node_id: 0,
            start_counter: 0,
            formation: None,
            formed: false,
            peers: BTreeMap::new(),
        }))
    }
}

impl Identities for Ephemeral {
    fn identity(&self) -> Identity {
        self.0.lock().expect("no panic while the lock is held").clone()
    }

    fn has_log(&self) -> bool {
        false
    }

    fn remember(&self, seen: BTreeMap<String, KnownPeer>) -> io::Result<()> {
        self.0.lock().expect("no panic while the lock is held").peers.extend(seen);
        Ok(())
    }
}
