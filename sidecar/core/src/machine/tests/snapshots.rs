//! The machine as bytes.

use super::*;
use crate::command::Error;

/// A machine with something of everything.
fn busy() -> Partition {
    let mut partition = Partition::with(Machine::new(2));
    let sessions = ["pod-1", "pod-2"].map(|pod| partition.session(pod));
    for (number, session) in (0_u64..).zip(sessions) {
        let envelope = Envelope { request: Some(request(1, 1_000, number)), command: join("g", session) };
        partition.apply(&envelope).outcome.unwrap();
    }
    partition.ok(step_down("g"));
    partition.join("h", sessions[0]);
    partition.ok(op("h", GroupOp::Delete));
    partition.ok(put("m", "k", "v"));
    for session in sessions {
        partition.ok(acquire("l", session));
    }
    partition
}

#[test]
fn a_machine_is_the_same_after_its_snapshot_was_restored() {
    for machine in [busy().machine, Machine::new(0), Machine::management()] {
        let bytes = machine.snapshot();
        let restored = Machine::restore(&bytes).unwrap();
        assert_eq!(restored, machine);
        assert_eq!(restored.snapshot(), bytes);
    }
}

#[test]
fn d4_terms_of_deleted_groups_are_remembered_by_the_snapshot() {
    let mut partition = Partition::with(Machine::restore(&busy().machine.snapshot()).unwrap());
    let session = partition.session("pod-3");
    partition.join("h", session);
    assert_eq!(partition.leader("h").0, Term((2 << TERM_BITS) + 2));
}

#[test]
fn d11_results_are_remembered_by_the_snapshot() {
    let mut machine = Machine::restore(&busy().machine.snapshot()).unwrap();
    let session = machine.sessions()[0].id;
    let before = machine.group(&"g".into()).unwrap().members;
    let envelope = Envelope { request: Some(request(1, 1_000, 0)), command: join("g", session) };
    let applied = machine.apply(Revision(100), 1_000, &envelope);
    assert!(applied.outcome.is_ok() && applied.events.is_empty());
    assert_eq!(machine.group(&"g".into()).unwrap().members, before);
}

#[test]
fn damaged_snapshots_are_refused() {
    let bytes = busy().machine.snapshot();
    assert!(matches!(Machine::restore(&[]), Err(Error::Empty { .. })));
    let newer = [&[99][..], &bytes[1..]].concat();
    assert!(matches!(Machine::restore(&newer), Err(Error::Version { version: 99, known: 3, .. })));
    for wrong in [&bytes[..bytes.len() - 1], &[&bytes[..], &[0]].concat()] {
        assert!(matches!(Machine::restore(wrong), Err(Error::Decode { .. })));
    }
}

#[test]
fn a_snapshot_of_the_first_version_is_one_without_maps_and_locks() {
    let mut partition = Partition::with(Machine::new(2));
    partition.session("pod-1");
    let mut bytes = partition.machine.snapshot();
    assert_eq!(bytes.split_off(bytes.len() - 2), [0, 0]);
    bytes[0] = 1;
    assert_eq!(Machine::restore(&bytes).unwrap(), partition.machine);
}

/// What [`busy`] gave when the form had version 2.
const BUSY_V2: &str = include_str!("busy.v2.hex");

#[test]
fn d11_a_snapshot_of_version_2_is_read_and_its_results_answer_whatever_is_asked() {
    let digits = BUSY_V2.trim().as_bytes().chunks(2);
    let bytes: Vec<u8> = digits.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()).collect();
    let mut machine = Machine::restore(&bytes).unwrap();
    let now = busy().machine;
    assert_eq!((machine.revision(), machine.sessions()), (now.revision(), now.sessions()));
    assert_eq!(
        (machine.group(&"g".into()), machine.view(&(&MapName::from("m")).into())),
        (now.group(&"g".into()), now.view(&(&MapName::from("m")).into()))
    );
    let session = machine.sessions()[0].id;
    for command in [join("g", session), create("g")] {
        let envelope = Envelope { request: Some(request(1, 1_000, 0)), command };
        let applied = machine.apply(next(&machine), 1_000, &envelope);
        assert!(applied.outcome.is_ok() && applied.events.is_empty());
    }
}

#[test]
fn equal_maps_are_equal_bytes_however_they_came_to_be() {
    let numbers = || (0..3_000).map(|number| format!("key-{number:04}"));
    let (mut forth, mut back) = (Partition::new(), Partition::new());
    for key in numbers() {
        forth.machine.apply(next(&forth.machine), 0, &Envelope { request: None, command: put("m", &key, "v") });
    }
    for key in numbers().rev() {
        back.machine.apply(next(&back.machine), 0, &Envelope { request: None, command: put("m", &key, "v") });
    }
    for key in numbers() {
        for machine in [&mut forth.machine, &mut back.machine] {
            machine.apply(next(machine), 0, &Envelope { request: None, command: put("m", &key, "w") });
        }
    }
    let bytes = forth.machine.snapshot();
    assert_eq!(back.machine.snapshot(), bytes);
    assert_eq!(Machine::restore(&bytes).unwrap(), back.machine);
}

fn next(machine: &Machine) -> Revision {
    Revision(machine.revision().0 + 1)
}

#[test]
#[should_panic(expected = "entry 5 comes after entry 5")]
fn an_entry_is_applied_once() {
    let mut machine = Machine::new(0);
    let envelope = Envelope { request: None, command: create("g") };
    machine.apply(Revision(5), 0, &envelope);
    machine.apply(Revision(5), 0, &envelope);
}
