//! Bytes that nobody made, or that came damaged: commands, questions and pieces of a snapshot. They have no checksum here (the
//! log and the link have), so they may be taken for something; that must then be whole.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::command::{decode, encode};

/// A valid encoding after one byte was changed, what is behind a place was cut, or bytes were put behind it.
fn damaged(whole: &[u8], (at, change, more): &(Index, u8, Vec<u8>)) -> [Vec<u8>; 3] {
    let at = at.index(whole.len());
    let mut changed = whole.to_vec();
    changed[at] ^= change;
    [changed, whole[..at].to_vec(), [whole, more].concat()]
}

fn damages() -> impl Strategy<Value = Vec<(Index, u8, Vec<u8>)>> {
    vec((any::<Index>(), 1_u8.., vec(any::<u8>(), 1..8)), 1..40)
}

/// Takes pieces, and if they are a machine, that one is itself after another restart, and still works.
fn take(pieces: &[Vec<u8>]) -> bool {
    let Ok(mut machine) = restore(pieces) else { return false };
    assert!(restore(&super::pieces(&machine)).unwrap() == machine, "it comes back as it was");
    let sessions = machine.sessions().iter().map(|session| session.id).collect();
    let Some(next) = machine.revision().0.checked_add(1) else { return true };
    let expire = Envelope { request: None, command: Command::ExpireSessions(sessions) };
    machine.apply(Revision(next), 1_000, &expire).outcome.unwrap();
    assert_eq!(machine.session_count(), 0);
    true
}

/// What a program could have meant by these bytes, done.
fn serve(machine: &mut Machine, bytes: &[u8]) {
    if let Ok(envelope) = decode::<Envelope>("command", bytes) {
        assert_eq!(decode::<Envelope>("command", &encode(&envelope)).unwrap(), envelope);
        machine.apply(Revision(machine.revision().0 + 1), 1_000, &envelope);
    }
    if let Ok(query) = decode::<Query>("query", bytes) {
        let answer = machine.query(&query);
        assert_eq!(decode::<Result<Answer, Rejection>>("answer", &encode(&answer)).unwrap(), answer);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_machine_panic(commands in vec(vec(any::<u8>(), 0..60), 0..60), management in any::<bool>()) {
        let mut machine = if management { Machine::management() } else { Machine::new(0) };
        for bytes in &commands {
            serve(&mut machine, bytes);
            serve(&mut machine, &[&[crate::command::WIRE_VERSION], &bytes[..]].concat());
        }
        prop_assert!(restore(&pieces(&machine)).unwrap() == machine);
    }

    #[test]
    fn no_bytes_make_the_restorer_panic(pieces in vec(vec(any::<u8>(), 0..60), 0..6)) {
        take(&pieces);
        let mut versioned = pieces;
        if let Some(first) = versioned.first_mut() {
            first.insert(0, 6);
        }
        take(&versioned);
    }
}

// Fewer, because each makes a log first: `tests/fuzz` does the same with many.
proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_command_is_refused_or_another_command(entries in properties::entries(), damages in damages()) {
        let mut machine = Machine::new(0);
        let log = properties::log(&entries);
        for ((now_ms, envelope), damage) in log.iter().take(40).zip(damages.iter().cycle()) {
            let whole = encode(envelope);
            for bytes in damaged(&whole, damage) {
                prop_assert!(decode::<Envelope>("command", &bytes).ok().as_ref() != Some(envelope) || bytes.len() == whole.len());
                serve(&mut machine, &bytes);
            }
            machine.apply(Revision(machine.revision().0 + 1), *now_ms, envelope);
        }
        prop_assert!(restore(&pieces(&machine)).unwrap() == machine);
    }

    #[test]
    fn damaged_pieces_are_refused_or_make_a_machine_that_is_whole(entries in properties::entries(), damages in damages()) {
        let mut machine = Machine::new(0);
        for (now_ms, envelope) in properties::log(&entries) {
            machine.apply(Revision(machine.revision().0 + 1), now_ms, &envelope);
        }
        let whole = pieces(&machine);
        for damage in &damages {
            let [changed, cut, grown] = damaged(&whole[0], damage);
            take(&[changed]);
            prop_assert!(!take(&[cut]) && !take(&[grown]), "it ends with a count of its parts");
        }
    }
}
