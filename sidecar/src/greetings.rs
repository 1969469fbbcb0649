//! Members greet each other: at the start, so that no data directory takes part that is not the known one (D14), and
//! twice a second after that, so that each knows who can be reached.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coterie_core::config::Timing;
use coterie_core::machine::MACHINE_VERSION;
use coterie_core::{ErrorCode, MemberName, NodeId, Rejection};
use coterie_env::Env;
use coterie_proto::peer;
use coterie_replication::storage_key;
use coterie_store::directory::Identity;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::identities::Identities;
use crate::limits;
use crate::partitions::Partitions;
use crate::peers::admission::{self, Alive, Held};
use crate::peers::client::{Peers, WIRE_VERSION};

/// What is known of another member's process.
#[derive(Clone, Debug)]
pub struct Met {
    /// What it said of itself.
    pub identity: peer::Identity,
    /// When it was last heard of, by the monotonic clock.
    pub heard_ms: u64,
    /// Why its data directory is refused, if it is.
    pub refused: Option<Rejection>,
    /// Whether this very process of it accepts this member's directory.
    pub accepts: bool,
    /// Whether the connection over which it greeted this member is open; `None` if it never did.
    open: Option<Arc<AtomicBool>>,
}

/// Who this member has met. Cheap to clone.
#[derive(Clone)]
pub struct Greetings(Arc<Inner>);

struct Inner {
    env: Env,
    own: Own,
    identities: Arc<dyn Identities>,
    met: Mutex<BTreeMap<MemberName, Met>>,
    greet: Notify,
    rounds: AtomicU64,
    changes: watch::Sender<u64>,
    doubts: Mutex<BTreeMap<MemberName, Rejection>>,
    refused: watch::Sender<Option<Rejection>>,
}

/// What this member says of itself, apart from its identity.
#[derive(Clone)]
pub struct Own {
    /// Its run.
    pub run: u64,
    /// Where it can be dialled; empty if it cannot.
    pub address: String,
    /// Its failure domain.
    pub zone: String,
    /// Whether it is a PERSISTENT member.
    pub voter: bool,
    /// Which timers it runs with.
    pub timing: Timing,
    /// The members that the management group is declared to have.
    pub seats: Vec<MemberName>,
    /// How far the log of each partition went when the process started.
    pub marks: Vec<peer::Mark>,
    /// The replicas here, for what their leaders know of others.
    pub partitions: Partitions,
}

impl Greetings {
    /// Nobody met yet.
    pub fn new(env: &Env, own: Own, identities: Arc<dyn Identities>) -> Self {
        Self(Arc::new(Inner {
            env: env.clone(),
            own,
            identities,
            met: Mutex::default(),
            greet: Notify::new(),
            rounds: AtomicU64::new(0),
            changes: watch::Sender::new(0),
            doubts: Mutex::default(),
            refused: watch::Sender::new(None),
        }))
    }

    /// Says that what is known of others, or this member's own identity, changed.
    pub fn touch(&self) {
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Changes whenever somebody was heard of, or this member's own identity changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Why the cluster refuses this member's data directory, once it does.
    pub fn refused(&self) -> watch::Receiver<Option<Rejection>> {
        self.0.refused.subscribe()
    }

    /// Why another member takes this process for a copy at the moment, if one does. It may be accepted later: when the
    /// process on the original is gone.
    pub fn doubt(&self) -> Option<Rejection> {
        self.0.doubts.lock().expect("no panic while the lock is held").values().next().cloned()
    }

    /// Refuses this member's own directory: the cluster knows better.
    pub fn refuse_self(&self, rejection: Rejection) {
        self.0.refused.send_if_modified(|present| {
            let new = present.is_none();
            if new {
                tracing::error!(code = rejection.code.label(), reason = %rejection.message, "this member is refused");
                *present = Some(rejection);
            }
            new
        });
    }

    /// Everyone met, by name.
    pub fn met(&self) -> BTreeMap<MemberName, Met> {
        self.lock().clone()
    }

    /// Whether this member was heard of lately and its directory is accepted.
    pub fn reachable(&self, member: &MemberName) -> bool {
        let now_ms = self.0.env.clock.monotonic_ms();
        self.lock().get(member).is_some_and(|met| met.refused.is_none() && met.heard_ms + limits::REACHABLE_MS > now_ms)
    }

    /// Whether Raft messages of this process are taken: each of the two has accepted the other's directory.
    pub fn admitted(&self, node: u64, run: u64) -> bool {
        self.lock().values().any(|met| {
            met.refused.is_none() && met.accepts && met.identity.node_id == node && met.identity.run == run && node != 0
        })
    }

    /// How often everyone that can be called was greeted, and has answered or not.
    pub fn rounds(&self) -> u64 {
        self.0.rounds.load(Ordering::Acquire)
    }

    /// What this member says.
    pub fn hello(&self) -> peer::HelloRequest {
        let identity = self.0.identities.identity();
        peer::HelloRequest { wire_version: WIRE_VERSION, known: known(&identity), from: Some(self.describe(&identity)) }
    }

    /// Answers a greeting.
    pub fn greeted(&self, hello: peer::HelloRequest, open: Option<Arc<AtomicBool>>) -> peer::HelloResponse {
        let refused = match self.weigh(&hello, open) {
            Ok(()) => String::new(),
            Err(rejection) => format!("{}: {}", rejection.code.label(), rejection.message),
        };
        let identity = self.0.identities.identity();
        peer::HelloResponse { known: known(&identity), from: Some(self.describe(&identity)), refused }
    }

    /// Greets everyone that can be called, until the process stops.
    pub async fn run(self, peers: Peers, stop: CancellationToken) {
        loop {
            let greetings = peers.members().into_iter().map(|member| self.greet(peers.clone(), member));
            tokio::select! {
                _ = futures_util::future::join_all(greetings) => {
                    self.0.rounds.fetch_add(1, Ordering::AcqRel);
                    self.touch();
                }
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(limits::GREETING_MS)) => {}
                () = self.0.greet.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Greets one member and weighs what it answers.
    pub async fn greet(&self, peers: Peers, member: MemberName) {
        let Ok(mut client) = peers.client(&member) else { return };
        let limit = Duration::from_millis(limits::GREETING_TIMEOUT_MS);
        let response = match tokio::time::timeout(limit, client.hello(self.hello())).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => {
                tracing::debug!(%member, %status, "a greeting failed");
                return;
            }
            Err(_) => return,
        };
        let refused = response.refused;
        let hello = peer::HelloRequest { wire_version: WIRE_VERSION, from: response.from, known: response.known };
        if hello.from.as_ref().is_some_and(|from| from.member != member.0) {
            tracing::warn!(%member, "another member answers at this member's address");
            return;
        }
        match self.weigh(&hello, None) {
            Ok(()) if !refused.is_empty() => self.refused_by(&member, &refused),
            Ok(()) => {
                self.0.doubts.lock().expect("no panic while the lock is held").remove(&member);
                if let Some(met) = self.lock().get_mut(&member) {
                    met.accepts = true;
                }
                self.touch();
            }
            Err(rejection) => tracing::debug!(%member, reason = %rejection.message, "a member is refused"),
        }
    }

    fn refused_by(&self, member: &MemberName, refused: &str) {
        let (label, message) = refused.split_once(": ").unwrap_or(("internal", refused));
        let code = ErrorCode::from_label(label).unwrap_or(ErrorCode::Internal);
        match code {
            ErrorCode::DirectoryReplaced | ErrorCode::DirectoryRolledBack => {
                self.refuse_self(Rejection::new(code, message));
            }
            // The process on the original may just have died: asked again at the next greeting.
            _ => {
                let doubt = Rejection::new(code, message);
                let mut doubts = self.0.doubts.lock().expect("no panic while the lock is held");
                if doubts.insert(member.clone(), doubt.clone()).as_ref() != Some(&doubt) {
                    tracing::warn!(%member, reason = message, "a member refuses this one");
                }
            }
        }
    }

    fn weigh(&self, hello: &peer::HelloRequest, open: Option<Arc<AtomicBool>>) -> Result<(), Rejection> {
        let from = hello
            .from
            .as_ref()
            .ok_or_else(|| Rejection::new(ErrorCode::InvalidArgument, "`from` is missing: say who greets"))?;
        if hello.wire_version != WIRE_VERSION {
            let message = format!(
                "{} speaks version {} between sidecars, this member {WIRE_VERSION}",
                from.member, hello.wire_version
            );
            return Err(Rejection::new(ErrorCode::InvalidArgument, message));
        }
        let own = self.0.identities.identity();
        if from.member == own.member && from.run != self.0.own.run && own.node_id == from.node_id {
            let message = format!("two processes run as {}; this is the other one", own.member);
            return Err(Rejection::new(ErrorCode::DirectoryCopied, message));
        }
        let now_ms = self.0.env.clock.monotonic_ms();
        let name = MemberName(from.member.clone());
        let mut met = self.lock();
        let alive = met.get(&name).filter(|met| met.alive(now_ms)).map(|met| Alive { run: met.identity.run });
        // A process that was accepted has moved on from where its log was when it started.
        let accepted = met.get(&name).is_some_and(|met| met.identity.run == from.run && met.refused.is_none());
        let held = if accepted { Vec::new() } else { self.held(from) };
        let verdict = admission::judge(&own, alive, &held, from);
        let verdict = match self.0.own.voter {
            true => verdict.and_then(|new| admission::agree(self.0.own.timing, from).map(|()| new)),
            false => verdict,
        };
        let mut seen = match &verdict {
            // Only those who vote have a word in who is who.
            Ok(_) if from.voter => admission::learn(&own, &hello.known),
            Ok(_) | Err(_) => BTreeMap::new(),
        };
        if let Ok(Some(new)) = &verdict {
            seen.insert(from.member.clone(), *new);
        }
        if !seen.is_empty() {
            // Durable before the other side counts as accepted, so that a rollback is noticed after a restart too.
            self.0
                .identities
                .remember(seen)
                .map_err(|error| Rejection::new(ErrorCode::Internal, format!("remember {}: {error}", from.member)))?;
        }
        match verdict {
            Ok(_) => {
                let before = met.get(&name).filter(|met| met.identity.run == from.run);
                let accepts = before.is_some_and(|met| met.accepts);
                if !accepts && from.voter {
                    // A process that is new here: whether it accepts this directory is asked at once.
                    self.0.greet.notify_one();
                }
                let open = open.or_else(|| before.and_then(|met| met.open.clone()));
                let new = Met { identity: from.clone(), heard_ms: now_ms, refused: None, accepts, open };
                met.insert(name, new);
            }
            Err(rejection) => {
                if !met.get(&name).is_some_and(|met| met.alive(now_ms)) {
                    let refused = Some(rejection.clone());
                    let new = Met { identity: from.clone(), heard_ms: now_ms, refused, accepts: false, open };
                    let before = met.insert(name, new);
                    if before.is_none_or(|before| before.refused.as_ref() != Some(&rejection)) {
                        tracing::warn!(member = from.member, reason = %rejection.message, "a member is refused");
                    }
                }
                let mixture = self.mixture(&own, &met);
                drop(met);
                if let Some(mixture) = mixture {
                    self.refuse_self(mixture);
                }
                return Err(rejection);
            }
        }
        drop(met);
        if from.voter
            && let Err(rejection) = admission::judge_self(&own, self.0.own.run, &hello.known)
        {
            self.refuse_self(rejection);
        }
        self.touch();
        Ok(())
    }

    /// What leaders here know of this member's log.
    fn held(&self, from: &peer::Identity) -> Vec<Held> {
        let all = self.0.own.partitions.all().into_iter();
        let held = all.map(|(partition, replica)| {
            let index = replica.held_by(NodeId(from.node_id))?;
            Some(Held { key: storage_key(&partition, replica.generation()), index })
        });
        held.flatten().collect()
    }

    /// Two sides that carry different cluster ids refuse each other; the one that a majority of the declared seats is
    /// not with is the wrong one, and where no side has a majority all are.
    fn mixture(&self, own: &Identity, met: &BTreeMap<MemberName, Met>) -> Option<Rejection> {
        let own_id = own.cluster_id?;
        let other = |member: &&MemberName| {
            let their_id = met.get(*member).and_then(|met| admission::cluster_id(&met.identity.cluster_id));
            their_id.is_some_and(|their_id| their_id != own_id)
        };
        let others: Vec<&MemberName> = self.0.own.seats.iter().filter(other).collect();
        if others.len() * 2 <= self.0.own.seats.len() {
            return None;
        }
        let names: Vec<&str> = others.iter().map(|member| member.as_str()).collect();
        Some(Rejection::new(
            ErrorCode::DirectoryReplaced,
            format!(
                "{}'s data directory carries the cluster id {own_id:032x}, those of {} carry another: volumes of different \
                 clusters are mixed; give every member its own cluster's volume",
                own.member,
                names.join(", ")
            ),
        ))
    }

    fn describe(&self, identity: &Identity) -> peer::Identity {
        peer::Identity {
            cluster: identity.cluster.clone(),
            cluster_id: identity.cluster_id.map(|id| id.to_be_bytes().to_vec().into()).unwrap_or_default(),
            member: identity.member.clone(),
            node_id: identity.node_id,
            start_counter: identity.start_counter,
            run: self.0.own.run,
            has_log: self.0.identities.has_log(),
            marks: self.0.own.marks.clone(),
            machine_version: MACHINE_VERSION,
            address: self.0.own.address.clone(),
            zone: self.0.own.zone.clone(),
            voter: self.0.own.voter,
            formed: identity.formed,
            timing: self.0.own.timing.label().to_owned(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<MemberName, Met>> {
        self.0.met.lock().expect("no panic while the lock is held")
    }
}

impl Met {
    /// Somebody who was accepted and accepts, never heard of since.
    pub fn accepted(identity: peer::Identity) -> Self {
        Self { identity, heard_ms: 0, refused: None, accepts: true, open: None }
    }

    /// Whether its process surely still runs: it was heard of lately over a connection that has not ended.
    fn alive(&self, now_ms: u64) -> bool {
        let open = self.open.as_ref().is_some_and(|open| open.load(Ordering::Acquire));
        self.refused.is_none() && open && self.heard_ms + limits::REACHABLE_MS > now_ms
    }
}

fn known(identity: &Identity) -> Vec<peer::Known> {
    let others = identity.peers.iter().map(|(member, known)| peer::Known {
        member: member.clone(),
        node_id: known.node_id,
        start_counter: known.start_counter,
        run: known.run,
    });
    others.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identities::Ephemeral;

    fn member(name: &str, voter: bool, timing: Timing) -> Greetings {
        let own = Own {
            run: 1,
            address: String::new(),
            zone: String::new(),
            voter,
            timing,
            seats: Vec::new(),
            marks: Vec::new(),
            partitions: Partitions::default(),
        };
        let identities = Arc::new(Ephemeral::new("default", &MemberName(name.to_owned())));
        Greetings::new(&coterie_env::real::real(), own, identities)
    }

    #[test]
    fn a_member_of_other_timers_is_refused_on_both_sides_until_it_has_the_same() {
        let normal = member("a", true, Timing::Normal);
        let fast = member("b", true, Timing::Fast);
        for (one, other, said) in [(&normal, &fast, "b runs with `timing: fast`"), (&fast, &normal, "a runs with")] {
            let refused = one.greeted(other.hello(), None).refused;
            assert!(refused.starts_with(&format!("invalid_argument: {said}")), "{refused}");
        }
        let name = MemberName("b".to_owned());
        assert!(!normal.reachable(&name));
        let changed = member("b", true, Timing::Normal);
        assert_eq!(normal.greeted(changed.hello(), None).refused, "");
        assert!(normal.reachable(&name));
    }

    #[test]
    fn timers_of_clients_are_no_matter() {
        let voter = member("a", true, Timing::Fast);
        let client = member("c", false, Timing::Normal);
        assert_eq!(voter.greeted(client.hello(), None).refused, "");
        assert_eq!(client.greeted(voter.hello(), None).refused, "");
    }
}
