//! Deduplication (D11): a request that was applied is answered with what it gave; it is never applied again.
//!
//! ```text
//!  a client's requests, by id (which rises with the client's clock)
//!      dropped results      │        kept results, at most RESULTS_PER_CLIENT_MAX
//!  ─────────────────────── floor ───────────────────────────────────────────────────►
//!         expired                 kept: answered again      not kept: new, applied
//! ```
//! The floor is per client, and stays when the client's results go because they are old. The *horizon* is the partition's:
//! the newest time of issue of all that a client had applied of which not even the floor is left, because there are too many
//! clients. A request that is not kept and not above both may have been applied and forgotten: it is `expired`.
//!
//! Neither rises with a clock, only with what is forgotten, and the client that goes first is the one whose newest request is
//! the oldest. So a clock that is ahead for a moment, a leader's or a client's, makes results go early at most; it expires no
//! request of another. What is older than results are kept, by the clock of the leader that took it, is refused too, whether
//! anything was forgotten or not.
//!
//! An id that is used again for something else is refused: whoever did that would be told that it was done. What a request
//! asked for is kept as a number beside its result (see [`asked`](super::asked)).
//!
//! | what is kept | and what is not |
//! |---|---|
//! | what was done, and refusals that stay (`Retry::Never`) | refusals that invite the same request again (`Retry::Later`): nothing was done |
//! | a view of the group without its members | the members: 128 views of a large group per client would not fit in memory |

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use coterie_mutants::{Mutant, is_on};
use serde::{Deserialize, Serialize};

use super::{Step, validate};
use crate::chunks::Chunks;
use crate::code::{ErrorCode, Rejection, Retry};
use crate::command::{GroupView, Outcome, Reply};
use crate::ids::RequestId;
use crate::limits::{CLIENT_CLOCK_AHEAD_MS_MAX, CLIENTS_MAX, RESULT_AGE_MS_MAX, RESULTS_PER_CLIENT_MAX};

/// So many clients at most lose their results at a time, whenever one comes, and every [`LOOK_EVERY`] requests: faster than
/// they come, and never a long pause.
const CLIENTS_FORGOTTEN_AT_ONCE: usize = 2;
const LOOK_EVERY: u64 = 16;

/// What is kept of one client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Client {
    /// The largest request whose result was dropped; 0: none was.
    floor: u128,
    /// In a snapshot they are parts of their own.
    #[serde(skip)]
    results: Results,
}

/// What is kept of one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// What it asked for.
    asked: u64,
    outcome: Outcome,
}

/// Results in the order of their requests. Ids rise with the client's clock, so the next one comes at the end, or close to
/// it; there are few enough to move when it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Results(VecDeque<(u128, Kept)>);

impl Results {
    fn seek(&self, request: u128) -> Result<usize, usize> {
        match self.0.back() {
            Some((last, _)) if *last < request => Err(self.0.len()),
            _ => self.0.binary_search_by_key(&request, |(request, _)| *request),
        }
    }

    fn get(&self, request: u128) -> Option<&Kept> {
        self.seek(request).ok().map(|at| &self.0[at].1)
    }

    fn insert(&mut self, request: u128, kept: Kept) {
        match self.seek(request) {
            Ok(at) => self.0[at].1 = kept,
            Err(at) => {
                if self.0.len() == self.0.capacity() && self.0.len() >= RESULTS_PER_CLIENT_MAX / 2 {
                    // Not twice as many as there will ever be: one more than are kept, until the first is dropped.
                    self.0.reserve_exact(RESULTS_PER_CLIENT_MAX + 1 - self.0.len().min(RESULTS_PER_CLIENT_MAX));
                }
                self.0.insert(at, (request, kept));
            }
        }
    }
}

impl Client {
    pub(super) fn results(&self) -> impl Iterator<Item = &(u128, Kept)> {
        self.results.0.iter()
    }

    /// The next result of a snapshot. `None` if it is not the next.
    pub(super) fn restore(&mut self, request: u128, kept: Kept) -> Option<()> {
        let follows = self.results.seek(request) == Err(self.results.0.len());
        self.results.insert(request, kept);
        follows.then_some(())
    }

    /// Drops the result of the smallest request.
    fn drop_first(&mut self) {
        if let Some((request, _)) = self.results.0.pop_front() {
            self.floor = self.floor.max(request);
        }
    }

    /// The largest of its requests that was applied.
    fn newest(&self) -> u128 {
        self.results.0.back().map_or(self.floor, |(request, _)| self.floor.max(*request))
    }
}

/// Clients by their newest request: those that have results, and those that have only a floor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Order {
    with_results: BTreeSet<(u128, u128)>,
    floor_only: BTreeSet<(u128, u128)>,
}

impl Order {
    fn file(&mut self, id: u128, client: &Client) -> bool {
        self.of(client).insert((client.newest(), id))
    }

    fn unfile(&mut self, id: u128, client: &Client) {
        self.of(client).remove(&(client.newest(), id));
    }

    fn of(&mut self, client: &Client) -> &mut BTreeSet<(u128, u128)> {
        if client.results.0.is_empty() { &mut self.floor_only } else { &mut self.with_results }
    }

    fn oldest(&self) -> Option<u128> {
        let firsts = [self.with_results.first(), self.floor_only.first()];
        firsts.into_iter().flatten().min().map(|(_, id)| *id)
    }

    fn oldest_with_results(&self) -> Option<(u128, u128)> {
        self.with_results.first().copied()
    }
}

fn issued_ms(request: u128) -> u64 {
    RequestId { client: 0, request }.issued_ms()
}

/// What to do with a request.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Apply it, then [`Dedup::keep`] what it gave.
    New,
    /// Its id was applied; this is what that gave, or that it was of another request.
    Applied(Outcome),
    /// It may not be applied.
    Refused(Rejection),
}

/// The results of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dedup {
    /// 0: no client was dropped.
    horizon_ms: u64,
    clients: Chunks<u128, Arc<Client>>,
    /// A snapshot leaves it out.
    order: Order,
}

impl Dedup {
    /// From a snapshot, without its clients.
    pub(super) fn since(horizon_ms: u64) -> Self {
        Self { horizon_ms, ..Self::default() }
    }

    /// The next client of a snapshot, with its results. `None` if it is not the next, or nothing is known of it.
    pub(super) fn restore(&mut self, id: u128, client: Client) -> Option<()> {
        let is_known = client.newest() > 0 && self.order.file(id, &client);
        (is_known && self.clients.push(id, Arc::new(client))).then_some(())
    }

    pub(super) fn horizon_ms(&self) -> u64 {
        self.horizon_ms
    }

    pub(super) fn clients(&self) -> &Chunks<u128, Arc<Client>> {
        &self.clients
    }

    /// Whether a request, which asks for `asked`, is new.
    pub(super) fn admit(&mut self, request: RequestId, asked: u64, step: &Step) -> Verdict {
        let verdict = match is_on(Mutant::ForgetDeduplication) {
            true => Verdict::New,
            false => self.judge(request, asked, step),
        };
        if step.revision.0.is_multiple_of(LOOK_EVERY) {
            self.forget_old_results(step.stamped_ms);
        }
        verdict
    }

    fn judge(&self, request: RequestId, asked: u64, step: &Step) -> Verdict {
        let now_ms = step.now_ms;
        let client = self.clients.get(&request.client);
        if let Some(kept) = client.and_then(|client| client.results.get(request.request)) {
            return Verdict::Applied(if kept.asked == asked {
                kept.outcome.clone()
            } else {
                Err(validate::invalid("request_id", "belongs to another request; mint one for each request"))
            });
        }
        let issued_ms = request.issued_ms();
        if issued_ms > now_ms.saturating_add(CLIENT_CLOCK_AHEAD_MS_MAX) {
            let ahead_ms = issued_ms - now_ms;
            return Verdict::Refused(validate::invalid(
                "request_id",
                format_args!(
                    "was made {ahead_ms} ms ahead of the partition's time; set the client's clock, at most \
                     {CLIENT_CLOCK_AHEAD_MS_MAX} ms are allowed"
                ),
            ));
        }
        let dropped_of_client = client.is_some_and(|client| request.request <= client.floor);
        let dropped_with_client = self.horizon_ms > 0 && issued_ms <= self.horizon_ms;
        // Such a one would be forgotten by now, if it was ever applied.
        let is_too_old = is_old(request.request, step.stamped_ms);
        if dropped_of_client || dropped_with_client || is_too_old {
            return Verdict::Refused(expired(request, now_ms));
        }
        Verdict::New
    }

    /// Keeps what a new request gave, and drops what is beyond the limits.
    pub(super) fn keep(&mut self, request: RequestId, asked: u64, step: &Step, outcome: &Outcome) {
        if outcome.as_ref().is_err_and(|rejection| rejection.code.retry() == Retry::Later) {
            return;
        }
        if !self.clients.contains_key(&request.client) {
            self.forget_old_results(step.stamped_ms);
            self.make_room();
        }
        let client = Arc::make_mut(self.clients.get_or_insert_with(&request.client, Arc::default));
        self.order.unfile(request.client, client);
        client.results.insert(request.request, Kept { asked, outcome: without_members(outcome) });
        while client.results.0.len() > RESULTS_PER_CLIENT_MAX {
            client.drop_first();
        }
        self.order.file(request.client, client);
    }

    /// Forgets the results of clients whose newest request is older than results are kept. Their floors stay.
    fn forget_old_results(&mut self, stamped_ms: u64) {
        for _ in 0..CLIENTS_FORGOTTEN_AT_ONCE {
            let Some((newest, id)) = self.order.oldest_with_results() else { return };
            let Some(client) = self.clients.get_mut(&id).filter(|_| is_old(newest, stamped_ms)) else { return };
            self.order.unfile(id, client);
            *client = Arc::new(Client { floor: newest, results: Results::default() });
            self.order.file(id, client);
        }
    }

    /// Room for one more client: the one whose newest request is the oldest goes, and the horizon rises past all that it
    /// asked.
    fn make_room(&mut self) {
        while self.clients.len() >= CLIENTS_MAX
            && let Some(id) = self.order.oldest()
            && let Some(client) = self.clients.remove(&id)
        {
            self.order.unfile(id, &client);
            self.horizon_ms = self.horizon_ms.max(issued_ms(client.newest())).max(1);
        }
    }
}

/// Whether a request was issued so long ago that its result is not kept any more, by the clock of the leader that proposed
/// what is applied.
fn is_old(request: u128, stamped_ms: u64) -> bool {
    issued_ms(request).saturating_add(RESULT_AGE_MS_MAX) <= stamped_ms
}

fn expired(request: RequestId, now_ms: u64) -> Rejection {
    let age_ms = now_ms.saturating_sub(request.issued_ms());
    Rejection::new(
        ErrorCode::Expired,
        format!(
            "request_id: was made {age_ms} ms ago, if the clock that it is from is right; whether it was applied then is no \
             longer known, and it was not applied now: read the state, then send a new request ({RESULTS_PER_CLIENT_MAX} results per client are kept, for \
             {RESULT_AGE_MS_MAX} ms)"
        ),
    )
}

/// What is kept of an outcome: everything but members of groups, other than the one that joined, without its metadata.
fn without_members(outcome: &Outcome) -> Outcome {
    match outcome {
        Ok(Reply::Joined(joined)) => {
            let (id, view) = joined.as_ref();
            let mut kept = bare(view);
            kept.members.extend(view.members.iter().find(|member| member.id == *id).cloned().map(|mut member| {
                member.metadata.clear();
                member
            }));
            Ok(Reply::Joined(Box::new((*id, kept))))
        }
        Ok(Reply::Group(view)) => Ok(Reply::Group(Box::new(bare(view)))),
        Ok(Reply::Done | Reply::Session(_) | Reply::PartitionGroup(_) | Reply::Written { .. } | Reply::Placed(_))
        | Err(_) => outcome.clone(),
    }
}

/// A view with no member in it. Copies no member on the way: there may be thousands.
fn bare(view: &GroupView) -> GroupView {
    let GroupView { name, term, leader, releasing, members: _, config, config_revision, revision, last_event } = view;
    GroupView {
        name: name.clone(),
        term: *term,
        leader: *leader,
        releasing: *releasing,
        members: Vec::new(),
        config: *config,
        config_revision: *config_revision,
        revision: *revision,
        last_event: *last_event,
    }
}
