//! The machine in pieces.

use super::*;
use crate::command::Error;
use crate::machine::snapshot::{PIECE_BYTES, PIECE_BYTES_MAX};

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

/// A machine whose snapshot has many pieces: small parts, and parts that are larger than a piece should be.
fn large() -> Partition {
    let mut partition = busy();
    let mut put = |map_name: &str, key: &str, bytes: usize| {
        let value = vec![7; bytes].into();
        let envelope = Envelope {
            request: Some(request(u128::from(partition.revision % 50), 1_000, partition.revision)),
            command: map(map_name, MapOp::Put { key: key.into(), value, only: Condition::Always }),
        };
        partition.revision += 1;
        partition.machine.apply(Revision(partition.revision), 1_000, &envelope).outcome.unwrap();
    };
    for number in 0..3_000 {
        put(&format!("map-{}", number % 7), &format!("key-{number}"), 300);
    }
    for number in 0..3 {
        put("values", &format!("key-{number}"), crate::limits::VALUE_BYTES_MAX);
    }
    partition
}

fn management() -> Partition {
    let mut partition = directory::cluster();
    for name in ["data", "more"] {
        partition.ok(directory::make(directory::record(name, 2, &[("a", 1)])));
        partition.ok(directory::first_use(name, "workers"));
    }
    partition.ok(directory::delete("more", true));
    partition
}

#[test]
fn a_machine_is_the_same_after_its_pieces_were_restored() {
    let machines = [busy(), large(), management(), Partition::management(), Partition::new()];
    for Partition { machine, .. } in machines {
        let pieces = pieces(&machine);
        let restored = restore(&pieces).unwrap();
        assert_eq!(restored, machine);
        assert_eq!(super::pieces(&restored), pieces);
    }
}

#[test]
fn pieces_are_bounded_whatever_the_machine_holds() {
    let pieces = pieces(&large().machine);
    assert!(pieces.len() > 6, "{} pieces", pieces.len());
    assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES_MAX));
    let long = pieces.iter().filter(|piece| piece.len() > PIECE_BYTES).count();
    assert_eq!(long, 3, "only what is one part is longer than a piece should be");
}

#[test]
fn an_image_stays_as_it_was_while_the_machine_goes_on() {
    let Partition { mut machine, .. } = large();
    let image = machine.image();
    let before = pieces(&machine);
    let session = machine.sessions()[0].id;
    let changes = [
        open("pod-3", 1),
        join("g", session),
        acquire("l", session),
        put("map-1", "key-1", "changed"),
        map("values", MapOp::Drop),
        op("g", GroupOp::Delete),
    ];
    for command in changes {
        machine.apply(next(&machine), 1_000, &Envelope { request: None, command }).outcome.unwrap();
    }
    assert_ne!(pieces(&machine), before);
    assert_eq!(image.pieces().collect::<Vec<_>>(), before);
}

#[test]
fn d4_terms_of_deleted_groups_are_remembered_by_the_snapshot() {
    let mut partition = Partition::with(restore(&pieces(&busy().machine)).unwrap());
    let session = partition.session("pod-3");
    partition.join("h", session);
    assert_eq!(partition.leader("h").0, Term((2 << TERM_BITS) + 2));
}

#[test]
fn d11_results_are_remembered_by_the_snapshot() {
    let mut machine = restore(&pieces(&busy().machine)).unwrap();
    let session = machine.sessions()[0].id;
    let before = machine.group(&"g".into()).unwrap().members;
    let envelope = Envelope { request: Some(request(1, 1_000, 0)), command: join("g", session) };
    let applied = machine.apply(Revision(100), 1_000, &envelope);
    assert!(applied.outcome.is_ok() && applied.events.is_empty());
    assert_eq!(machine.group(&"g".into()).unwrap().members, before);
}

#[test]
fn a_newer_version_is_refused_by_a_sentence_that_names_it() {
    for version in [7, 99] {
        let mut pieces = pieces(&busy().machine);
        pieces[0][0] = version;
        let error = restore(&pieces).unwrap_err();
        let expected = format!("machine snapshot has version {version}; this program knows up to 6");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn pieces_that_are_cut_missing_exchanged_or_too_many_are_refused() {
    assert!(matches!(restore(&[]), Err(Error::Decode { .. })));
    assert!(matches!(restore(&[vec![]]), Err(Error::Empty { .. })));
    let whole = pieces(&busy().machine);
    let [piece] = &whole[..] else { panic!("{} pieces", whole.len()) };
    for cut in 0..piece.len() {
        assert!(restore(&[piece[..cut].to_vec()]).is_err(), "cut at {cut}");
    }
    assert!(restore(&[[&piece[..], &[0]].concat()]).is_err());
    assert!(restore(&[piece.clone(), vec![]]).is_err());

    let pieces = pieces(&large().machine);
    for at in 0..pieces.len() {
        let mut without = pieces.clone();
        without.remove(at);
        assert!(restore(&without).is_err(), "without piece {at}");
        let mut twice = pieces.clone();
        twice.insert(at, pieces[at].clone());
        assert!(restore(&twice).is_err(), "piece {at} twice");
        let mut exchanged = pieces.clone();
        exchanged.swap(at, (at + 1) % pieces.len());
        assert!(restore(&exchanged).is_err(), "piece {at} after the next");
    }
}

#[test]
fn equal_maps_are_equal_pieces_however_they_came_to_be() {
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
    let pieces = pieces(&forth.machine);
    assert_eq!(super::pieces(&back.machine), pieces);
    assert_eq!(restore(&pieces).unwrap(), back.machine);
}

fn next(machine: &Machine) -> Revision {
    Revision(machine.revision().0 + 1)
}

#[test]
#[should_panic(expected = "command 5 comes after command 5")]
fn a_command_is_applied_once() {
    let mut machine = Machine::new(0);
    let envelope = Envelope { request: None, command: create("g") };
    machine.apply(Revision(5), 0, &envelope);
    machine.apply(Revision(5), 0, &envelope);
}
