//! One group of requests on its way to the leader of their partition, and what may have become of them.

use std::time::Duration;

use bytes::Bytes;
use coterie_core::command::{self, Answer, Outcome, Query};
use coterie_core::{ErrorCode, MemberName, PartitionId, Rejection, Revision};
use coterie_proto::peer;
use coterie_proto::peer::frame::Body;
use coterie_replication::{ProposeError, Read, ReadKind};

use super::Router;
use crate::deadline::Deadline;
use crate::limits;
use crate::peers::CallError;
use crate::peers::client::to_wire;

/// What one try at one member gave.
pub(super) enum Tried<T> {
    Done(T),
    /// Not there; perhaps at this one. Nothing was proposed.
    Elsewhere(Option<MemberName>),
    /// Its fate is not known; the same request id may be sent again.
    Unknown(String),
    Rejected(Rejection),
}

/// What is known of a request after the tries so far.
#[derive(Debug, Default)]
struct Fate {
    /// Why one of them may have been applied.
    unknown: Option<String>,
}

/// What comes of a try.
#[derive(Debug, PartialEq, Eq)]
enum Verdict<T> {
    /// This is the answer.
    Answer(Result<T, Rejection>),
    /// It is to be tried again, perhaps at this member.
    Again(Option<MemberName>),
}

impl Fate {
    /// Once a try may have been applied only the machine's own word settles it: a later try that is refused says nothing
    /// about the earlier one (D11).
    fn judge<T>(&mut self, tried: Tried<T>) -> Verdict<T> {
        match tried {
            Tried::Done(done) => Verdict::Answer(Ok(done)),
            Tried::Elsewhere(member) => Verdict::Again(member),
            Tried::Unknown(reason) => {
                self.unknown = Some(reason);
                Verdict::Again(None)
            }
            Tried::Rejected(rejection) if self.unknown.is_none() => Verdict::Answer(Err(rejection)),
            Tried::Rejected(_) => Verdict::Again(None),
        }
    }

    /// The answer when the deadline has passed.
    fn gave_up(self, partition: &PartitionId) -> Rejection {
        match self.unknown {
            Some(reason) => Rejection::new(
                ErrorCode::Unknown,
                format!(
                    "whether this was applied on partition {partition} is not known ({reason}); \
                     a retry with the same request id is applied once"
                ),
            ),
            None if partition.group.is_system() => Rejection::new(
                ErrorCode::NoQuorum,
                "the management group has no leader that a majority follows; nothing was applied",
            ),
            None => Rejection::new(
                ErrorCode::NoQuorum,
                format!("partition {partition} has no leader that a majority follows; nothing was applied"),
            ),
        }
    }
}

/// A request of a group that has no answer yet.
struct Open {
    index: usize,
    fate: Fate,
}

impl Router {
    /// Sends requests to wherever the partition's leader is, until each is answered or the deadline passes. `try_at` is
    /// given the numbers of those that are still open, and says what became of each of them.
    pub(super) async fn route_all<T, F, R>(
        &self,
        partition: &PartitionId,
        deadline: Deadline,
        count: usize,
        try_at: F,
    ) -> Vec<Result<T, Rejection>>
    where
        F: Fn(MemberName, Duration, Vec<usize>) -> R,
        R: Future<Output = Vec<Tried<T>>>,
    {
        let mut answers: Vec<Option<Result<T, Rejection>>> = (0..count).map(|_| None).collect();
        let mut open: Vec<Open> = (0..count).map(|index| Open { index, fate: Fate::default() }).collect();
        let mut pause_ms = limits::RETRY_PAUSE_MS;
        let mut hint = None;
        let mut round = 0;
        while !open.is_empty() {
            let remaining = deadline.remaining(&self.0.env);
            if remaining.is_zero() {
                for Open { index, fate } in open.drain(..) {
                    answers[index] = Some(Err(fate.gave_up(partition)));
                }
                break;
            }
            let mut known = self.0.directory.leader(partition);
            let member = hint.take().unwrap_or_else(|| self.0.directory.candidate(partition, &self.0.own, round));
            round += 1;
            let budget =
                if member == self.0.own { remaining } else { remaining.min(Duration::from_millis(limits::TRY_MS_MAX)) };
            let tried = try_at(member, budget, open.iter().map(|open| open.index).collect()).await;
            let mut again = Vec::new();
            for (mut open, tried) in open.into_iter().zip(tried) {
                match open.fate.judge(tried) {
                    Verdict::Answer(answer) => answers[open.index] = Some(answer),
                    Verdict::Again(member) => {
                        hint = hint.or(member);
                        again.push(open);
                    }
                }
            }
            open = again;
            if open.is_empty() {
                break;
            }
            if let Some(member) = &hint {
                if !self.0.partitions.know_leader(partition) {
                    self.0.directory.note_leader(partition, member);
                    // What this try itself has noted is no news.
                    known = self.0.directory.leader(partition);
                }
                if pause_ms == limits::RETRY_PAUSE_MS {
                    // The leader has moved once, and where to is known. Two that name each other are waited out.
                    pause_ms += 1;
                    continue;
                }
            }
            let pause = Duration::from_millis(pause_ms).min(deadline.remaining(&self.0.env));
            tokio::select! {
                biased;
                // As a replica here has heard, mostly from the new leader itself.
                () = self.0.directory.leader_after(partition, known.as_ref()) => (hint, round) = (None, 0),
                () = tokio::time::sleep(pause) => pause_ms = (pause_ms * 2).min(limits::RETRY_PAUSE_MS_MAX),
            }
        }
        answers.into_iter().map(|answer| answer.expect("each was answered or given up")).collect()
    }

    /// Tries writes at one member; says what became of each, in their order.
    pub(super) async fn try_writes(
        &self,
        partition: &PartitionId,
        member: MemberName,
        bodies: Vec<Bytes>,
        budget: Duration,
    ) -> Vec<Tried<(Revision, Outcome)>> {
        let count = bodies.len();
        if member == self.0.own {
            let Some(local) = self.0.partitions.get(partition) else { return all(count, || Tried::Elsewhere(None)) };
            let done = local.propose_all(bodies, budget).await.into_iter();
            return done.map(|done| done.map_or_else(proposed, Tried::Done)).collect();
        }
        let timeout_ms = u64::try_from(budget.as_millis()).unwrap_or(u64::MAX);
        let request = peer::ProposeRequest { partition: Some(to_wire(partition)), bodies, timeout_ms };
        let answers = match self.0.peers.call(&member, Body::Propose(request), budget).await {
            Ok(Body::Proposed(response)) => response.answers,
            Ok(_) => return all(count, || Tried::Unknown(format!("{member} gave an answer of another kind"))),
            Err(CallError::NeverSent(_)) => return all(count, || Tried::Elsewhere(None)),
            Err(CallError::Unanswered(why)) => return all(count, || Tried::Unknown(format!("{member}: {why}"))),
        };
        let silence = || Tried::Unknown(format!("{member} answered nothing"));
        let tried = answers.into_iter().map(|answer| match answer.result {
            Some(peer::proposed::Result::Outcome(bytes)) => match command::decode::<Outcome>("outcome", &bytes) {
                Ok(outcome) => Tried::Done((Revision(answer.revision), outcome)),
                Err(error) => Tried::Unknown(error.to_string()),
            },
            Some(peer::proposed::Result::NotLeader(elsewhere)) => elsewhere_of(elsewhere),
            Some(peer::proposed::Result::Failure(failure)) => failed(failure),
            None => silence(),
        });
        // Whatever was not answered may have been done.
        tried.chain(std::iter::repeat_with(silence)).take(count).collect()
    }

    /// Tries reads at one member, or here if they may be stale; says what became of each, in their order.
    pub(super) async fn try_reads(
        &self,
        partition: &PartitionId,
        member: MemberName,
        queries: Vec<Query>,
        kind: ReadKind,
        budget: Duration,
    ) -> Vec<Tried<Read>> {
        let local = self.0.partitions.get(partition);
        if let Some(local) = local.filter(|_| kind == ReadKind::Stale || member == self.0.own) {
            return match local.read_all(&queries, kind, budget).await {
                Ok(Read { answer, revision, stale_ms }) => {
                    let read = |answer| Tried::Done(Read { answer, revision, stale_ms });
                    answer.into_iter().map(|answer| answer.map_or_else(rejected, read)).collect()
                }
                Err(error) => all(queries.len(), || not_unknown(proposed(error.clone()))),
            };
        }
        let together = self.ask(partition, &member, &queries, kind, budget).await;
        let is_too_large =
            |tried: &Tried<Read>| matches!(tried, Tried::Rejected(why) if why.code == ErrorCode::TooLarge);
        if queries.len() == 1 || !together.iter().all(is_too_large) {
            return together;
        }
        // Each alone can be sent, if not all at once.
        let mut tried = Vec::with_capacity(queries.len());
        for query in &queries {
            tried.append(&mut self.ask(partition, &member, std::slice::from_ref(query), kind, budget).await);
        }
        tried
    }

    async fn ask(
        &self,
        partition: &PartitionId,
        member: &MemberName,
        queries: &[Query],
        kind: ReadKind,
        budget: Duration,
    ) -> Vec<Tried<Read>> {
        let count = queries.len();
        let kind = match kind {
            ReadKind::Linearizable => peer::ReadKind::Linearizable,
            ReadKind::Leased => peer::ReadKind::Leased,
            ReadKind::Stale => peer::ReadKind::Stale,
        };
        let request = peer::QueryRequest {
            partition: Some(to_wire(partition)),
            queries: queries.iter().map(|query| command::encode(query).into()).collect(),
            kind: kind.into(),
            timeout_ms: u64::try_from(budget.as_millis()).unwrap_or(u64::MAX),
        };
        let Ok(Body::Queried(response)) = self.0.peers.call(member, Body::Query(request), budget).await else {
            return all(count, || Tried::Elsewhere(None));
        };
        let peer::QueryResponse { result, revision, stale_ms } = response;
        match result {
            Some(peer::query_response::Result::Answers(peer::Answers { answers })) => {
                let tried = answers.into_iter().map(|answer| match answer.result {
                    Some(peer::queried::Result::Answer(bytes)) => match command::decode::<Answer>("answer", &bytes) {
                        Ok(answer) => Tried::Done(Read { answer, revision: Revision(revision), stale_ms }),
                        Err(error) => Tried::Rejected(Rejection::new(ErrorCode::Internal, error.to_string())),
                    },
                    Some(peer::queried::Result::Failure(failure)) => not_unknown(failed(failure)),
                    None => Tried::Elsewhere(None),
                });
                tried.chain(std::iter::repeat_with(|| Tried::Elsewhere(None))).take(count).collect()
            }
            Some(peer::query_response::Result::NotLeader(elsewhere)) => all(count, || elsewhere_of(elsewhere.clone())),
            Some(peer::query_response::Result::Failure(failure)) => all(count, || not_unknown(failed(failure.clone()))),
            None => all(count, || Tried::Elsewhere(None)),
        }
    }
}

/// The same of all.
fn all<T>(count: usize, tried: impl FnMut() -> Tried<T>) -> Vec<Tried<T>> {
    std::iter::repeat_with(tried).take(count).collect()
}

fn proposed<T>(error: ProposeError) -> Tried<T> {
    match error {
        ProposeError::NotLeader(member) => Tried::Elsewhere(member),
        ProposeError::Rejected(rejection) => rejected(rejection),
    }
}

/// Failures that another try, elsewhere or later, may get around are not the caller's business before its deadline.
fn rejected<T>(rejection: Rejection) -> Tried<T> {
    match rejection.code {
        ErrorCode::Unknown => Tried::Unknown(rejection.message),
        ErrorCode::NoQuorum | ErrorCode::DeadlineExceeded | ErrorCode::ShuttingDown => Tried::Elsewhere(None),
        _ => Tried::Rejected(rejection),
    }
}

/// A read changes nothing, so its fate is never in doubt.
fn not_unknown<T>(tried: Tried<T>) -> Tried<T> {
    match tried {
        Tried::Unknown(_) => Tried::Elsewhere(None),
        tried => tried,
    }
}

fn failed<T>(failure: peer::Failure) -> Tried<T> {
    let code = ErrorCode::from_label(&failure.code).unwrap_or(ErrorCode::Internal);
    rejected(Rejection::new(code, failure.message))
}

fn elsewhere_of<T>(elsewhere: peer::NotLeader) -> Tried<T> {
    Tried::Elsewhere(Some(elsewhere.leader).filter(|leader| !leader.is_empty()).map(MemberName))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d11_a_refusal_of_a_later_try_does_not_settle_an_earlier_one_that_may_have_been_applied() {
        let partition = PartitionId { group: "data".into(), index: 1 };
        let refusal = || Tried::<u32>::Rejected(Rejection::new(ErrorCode::StorageFull, "the volume is full"));
        let mut fate = Fate::default();
        assert_eq!(fate.judge(Tried::<u32>::Unknown("no answer".to_owned())), Verdict::Again(None));
        assert_eq!(fate.judge(refusal()), Verdict::Again(None));
        assert_eq!(fate.judge(Tried::Done(7)), Verdict::Answer(Ok(7)), "the machine's own word settles it");
        assert_eq!(fate.gave_up(&partition).code, ErrorCode::Unknown);
    }

    #[test]
    fn a_refusal_is_the_answer_while_nothing_can_have_been_applied() {
        let partition = PartitionId { group: "data".into(), index: 1 };
        let mut fate = Fate::default();
        let elsewhere = Tried::<u32>::Elsewhere(Some(MemberName("b".to_owned())));
        assert_eq!(fate.judge(elsewhere), Verdict::Again(Some(MemberName("b".to_owned()))));
        let refusal = Rejection::new(ErrorCode::StorageFull, "the volume is full");
        assert_eq!(fate.judge(Tried::<u32>::Rejected(refusal.clone())), Verdict::Answer(Err(refusal)));
        assert_eq!(fate.gave_up(&partition).code, ErrorCode::NoQuorum);
    }
}
