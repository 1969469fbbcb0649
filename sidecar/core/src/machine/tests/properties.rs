//! What holds after any sequence of commands. The [`Witness`] checks the order of events, terms, leaders and the queue.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A command by positions, so that any number is a valid choice.
#[derive(Clone, Debug)]
enum Op {
    Open { pod: u8, incarnation: u64 },
    Close(u8),
    Expire(Vec<u8>),
    Create(u8),
    Delete(u8),
    Configure { group: u8, max_members: u32 },
    Join { group: u8, session: u8 },
    Leave { group: u8, member: u8 },
    Metadata { group: u8, member: u8 },
    StepDown(u8),
    Release { group: u8, back: u64 },
    TimedOut { group: u8, back: u64 },
    Put { map: u8, key: u8, only: u8 },
    Take { map: u8, key: u8, only: u8 },
    Drop(u8),
    Acquire { lock: u8, session: u8, wait: bool },
    Unlock { lock: u8, place: u8 },
}

fn op_strategy() -> impl Strategy<Value = Op> {
    let group = || 0..3_u8;
    prop_oneof![
        2 => (0..4_u8, 0..3_u64).prop_map(|(pod, incarnation)| Op::Open { pod, incarnation }),
        1 => any::<u8>().prop_map(Op::Close),
        1 => vec(any::<u8>(), 0..3).prop_map(Op::Expire),
        1 => group().prop_map(Op::Create),
        1 => group().prop_map(Op::Delete),
        1 => (group(), 0..6_u32).prop_map(|(group, max_members)| Op::Configure { group, max_members }),
        8 => (group(), any::<u8>()).prop_map(|(group, session)| Op::Join { group, session }),
        3 => (group(), any::<u8>()).prop_map(|(group, member)| Op::Leave { group, member }),
        1 => (group(), any::<u8>()).prop_map(|(group, member)| Op::Metadata { group, member }),
        3 => group().prop_map(Op::StepDown),
        3 => (group(), 0..3_u64).prop_map(|(group, back)| Op::Release { group, back }),
        2 => (group(), 0..2_u64).prop_map(|(group, back)| Op::TimedOut { group, back }),
        5 => (group(), any::<u8>(), 0..4_u8).prop_map(|(map, key, only)| Op::Put { map, key, only }),
        2 => (group(), any::<u8>(), 0..4_u8).prop_map(|(map, key, only)| Op::Take { map, key, only }),
        1 => group().prop_map(Op::Drop),
        6 => (group(), any::<u8>(), any::<bool>()).prop_map(|(lock, session, wait)| Op::Acquire { lock, session, wait }),
        4 => (group(), any::<u8>()).prop_map(|(lock, place)| Op::Unlock { lock, place }),
    ]
}

/// One entry: what, how time goes on, whose request it is, and whether it is sent again later.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    op: Op,
    elapsed_ms: u64,
    client: Option<u8>,
    repeat: Option<u8>,
}

pub(super) fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let elapsed = prop_oneof![8 => 0..50_u64, 1 => 0..400_000_u64];
    let entry = (op_strategy(), elapsed, proptest::option::of(0..3_u8), proptest::option::weighted(0.2, any::<u8>()))
        .prop_map(|(op, elapsed_ms, client, repeat)| Entry { op, elapsed_ms, client, repeat });
    vec(entry, 1..120)
}

fn pick<T: Copy>(from: &[T], at: u8) -> Option<T> {
    (!from.is_empty()).then(|| from[usize::from(at) % from.len()])
}

fn group_name(group: u8) -> String {
    format!("group-{group}")
}

/// The command that an [`Op`] means to this machine.
fn command(machine: &Machine, choice: &Op) -> Command {
    let sessions: Vec<_> = machine.sessions().iter().map(|session| session.id).collect();
    let session = |at: u8| pick(&sessions, at).unwrap_or(SessionId(u64::from(at)));
    let view = |group: u8| machine.group(&GroupName(group_name(group)));
    let member = |group: u8, at: u8| {
        let members: Vec<_> = view(group).into_iter().flat_map(|view| view.members).map(|member| member.id).collect();
        pick(&members, at).unwrap_or(MemberId(u64::from(at)))
    };
    let term = |group: u8, back: u64| Term(view(group).map_or(0, |view| view.term.0).saturating_sub(back));
    let key = |key: u8| format!("key-{}", key % 8);
    let only = |map: u8, at: u8, only: u8| match (only, machine.maps.entry(&MapName(group_name(map)), &key(at))) {
        (0, _) => Condition::Absent,
        (1, Some(entry)) => Condition::At(entry.revision),
        (1 | 2, _) => Condition::At(Revision(u64::from(at))),
        _ => Condition::Always,
    };
    match choice {
        Op::Put { map, key: at, only: how } => put_if(&group_name(*map), &key(*at), "value", only(*map, *at, *how)),
        Op::Take { map, key: at, only: how } => delete(&group_name(*map), &key(*at), only(*map, *at, *how)),
        Op::Drop(name) => map(&group_name(*name), MapOp::Drop),
        Op::Acquire { lock: name, session: at, wait } => {
            lock(&group_name(*name), LockOp::Acquire { session: session(*at), wait: *wait })
        }
        Op::Unlock { lock: name, place } => {
            let places: Vec<_> = places(&machine.lock_view(&LockName(group_name(*name))));
            let token = pick(&places, *place).unwrap_or(Token(u64::from(*place)));
            lock(&group_name(*name), LockOp::Release(token))
        }
        Op::Open { pod, incarnation } => open(&format!("pod-{pod}"), *incarnation),
        Op::Close(at) => Command::CloseSession(session(*at)),
        Op::Expire(at) => Command::ExpireSessions(at.iter().map(|at| session(*at)).collect()),
        Op::Create(group) => create(&group_name(*group)),
        Op::Delete(group) => op(&group_name(*group), GroupOp::Delete),
        Op::Configure { group, max_members } => {
            configure(&group_name(*group), GroupConfig { max_members: *max_members, ..GroupConfig::default() })
        }
        Op::Join { group, session: at } => join(&group_name(*group), session(*at)),
        Op::Leave { group, member: at } => leave(&group_name(*group), member(*group, *at)),
        Op::Metadata { group, member: at } => {
            let set = GroupOp::SetMetadata { member: member(*group, *at), metadata: BTreeMap::new(), if_term: None };
            op(&group_name(*group), set)
        }
        Op::StepDown(group) => step_down(&group_name(*group)),
        Op::Release { group, back } => op(&group_name(*group), GroupOp::Release(term(*group, *back))),
        Op::TimedOut { group, back } => op(&group_name(*group), GroupOp::ReleaseTimedOut(term(*group, *back))),
    }
}

/// The log that entries make: each command chosen for the state that it meets, with repetitions of earlier requests.
pub(super) fn log(entries: &[Entry]) -> Vec<(u64, Envelope)> {
    let mut partition = Partition { now_ms: 1_000_000, ..Partition::new() };
    let mut log = Vec::new();
    let mut requests: Vec<Envelope> = Vec::new();
    for (entry, number) in entries.iter().zip(0..) {
        partition.now_ms += entry.elapsed_ms;
        let request = entry.client.map(|client| request(u128::from(client), partition.now_ms, number));
        let envelope = Envelope { request, command: command(&partition.machine, &entry.op) };
        partition.apply(&envelope);
        log.push((partition.now_ms, envelope.clone()));
        if envelope.request.is_some() {
            requests.push(envelope);
        }
        if let Some(at) = entry.repeat.filter(|_| !requests.is_empty()) {
            let again = requests[usize::from(at) % requests.len()].clone();
            partition.apply(&again);
            log.push((partition.now_ms, again));
        }
    }
    log
}

/// Applies a log, with the witness, and with `check` before and after each entry.
fn run(log: &[(u64, Envelope)], mut check: impl FnMut(&Machine, &Envelope, &Applied, &Machine)) -> Machine {
    let mut partition = Partition::new();
    for (now_ms, envelope) in log {
        partition.now_ms = *now_ms;
        let before = partition.machine.clone();
        let applied = partition.apply(envelope);
        check(&before, envelope, &applied, &partition.machine);
    }
    partition.machine
}

fn places(view: &LockView) -> Vec<Token> {
    view.holder.iter().map(|holder| holder.token).chain(view.waiting.iter().map(|(token, _)| *token)).collect()
}

/// All that commands change, but for what is kept of requests.
fn state(machine: &Machine) -> impl PartialEq + std::fmt::Debug + use<> {
    (groups(machine), machine.maps.clone(), machine.locks.clone(), machine.sessions.clone())
}

fn groups(machine: &Machine) -> Vec<GroupView> {
    machine.groups.values().map(|group| group.view(Revision(0))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn s22_s27_s31_s32_d3_hold_after_any_commands_and_what_is_held_has_a_session(entries in entries()) {
        run(&log(&entries), |before, _, applied, after| {
            let live: Vec<_> = after.sessions().iter().map(|session| session.id).collect();
            for view in groups(after) {
                assert!(view.members.iter().all(|member| live.contains(&member.session)), "a member without a session");
            }
            let places: Vec<_> = after.locks.values().flat_map(|lock| &lock.queue).collect();
            assert!(places.iter().all(|place| live.contains(&place.session)), "a place without a session");
            assert!(after.sessions.live().keys().all(|id| id.0 <= after.revision.0));
            let mut counted = Maps::default();
            for (name, map) in after.maps.named().iter() {
                counted.restore(name.clone(), map.clone()).unwrap();
            }
            assert_eq!(counted, after.maps, "what is counted is what there is");
            if applied.outcome.is_err() {
                assert_eq!(state(before), state(after), "what is refused changes nothing");
            }
        });
    }

    #[test]
    fn d11_a_request_is_applied_at_most_once(entries in entries()) {
        let mut applied_once: BTreeMap<RequestId, Result<Option<u64>, ErrorCode>> = BTreeMap::new();
        run(&log(&entries), |before, envelope, applied, after| {
            let Some(request) = envelope.request else { return };
            // What identifies an answer: whom it made, or why it was refused.
            let answer = match &applied.outcome {
                Ok(Reply::Joined(joined)) => Ok(Some(joined.0.0)),
                Ok(Reply::Session(session)) => Ok(Some(session.0)),
                Ok(Reply::Written { revision, previous: _ }) => Ok(Some(revision.0)),
                Ok(Reply::Placed(placed)) => Ok(Some(placed.token.0)),
                Ok(Reply::Done | Reply::Group(_) | Reply::PartitionGroup(_)) => Ok(None),
                Err(rejection) => Err(rejection.code),
            };
            let Some(first) = applied_once.get(&request) else {
                if answer.is_ok() {
                    applied_once.insert(request, answer);
                }
                return;
            };
            assert_eq!(state(before), state(after), "a repetition changes nothing");
            assert!(applied.events.is_empty());
            assert!(answer == *first || answer == Err(ErrorCode::Expired), "{answer:?} after {first:?}");
        });
    }

    #[test]
    fn a_restored_machine_goes_on_as_the_one_that_never_stopped(entries in entries(), cut in any::<prop::sample::Index>()) {
        let log = log(&entries);
        let cut = cut.index(log.len());
        let mut kept = Machine::new(0);
        let mut restored = None;
        for ((now_ms, envelope), at) in log.iter().zip(0..) {
            if at == cut {
                restored = Some(restore(&pieces(&kept)).unwrap());
            }
            let revision = Revision(at as u64 + 1);
            let expected = kept.apply(revision, *now_ms, envelope);
            if let Some(machine) = &mut restored {
                prop_assert_eq!(machine.apply(revision, *now_ms, envelope), expected);
                prop_assert_eq!(&*machine, &kept);
                prop_assert_eq!(pieces(machine), pieces(&kept));
            }
        }
    }
}
