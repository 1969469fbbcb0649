//! The pieces of a snapshot, as a leader sends them: `coterie_core::machine::snapshot::Restorer`.
//!
//! ```text
//! piece, framed | piece, framed | …
//! ```
#![no_main]

use coterie_core::Revision;
use coterie_core::command::{Command, Envelope};
use coterie_core::machine::Machine;
use coterie_core::machine::snapshot::Restorer;
use coterie_fuzz::{Input, framed};

libfuzzer_sys::fuzz_target!(init: coterie_fuzz::seeds(seeds), |bytes: &[u8]| {
    let mut input = Input(bytes);
    let mut restorer = Restorer::new();
    while let Some(piece) = input.part() {
        if restorer.take(piece).is_err() {
            return;
        }
    }
    let Ok(mut machine) = restorer.finish() else { return };
    assert!(restored(&machine) == machine, "what was restored is itself once it is sent on");
    // It serves: whatever it holds can be let go of.
    let Some(next) = machine.revision().0.checked_add(1) else { return };
    let all = machine.sessions().iter().map(|session| session.id).collect();
    let expire = Envelope { request: None, command: Command::ExpireSessions(all) };
    machine.apply(Revision(next), 1_000, &expire).outcome.expect("the leader decides");
    assert_eq!(machine.session_count(), 0);
    assert!(restored(&machine) == machine);
});

fn restored(machine: &Machine) -> Machine {
    let mut restorer = Restorer::new();
    for piece in machine.image().pieces() {
        restorer.take(&piece).expect("it was made just now");
    }
    restorer.finish().expect("all pieces came")
}

fn seeds() -> Vec<Vec<u8>> {
    let of = |mut machine: Machine, envelopes: Vec<Envelope>| {
        for (revision, envelope) in (1..).zip(envelopes) {
            machine.apply(Revision(revision), 1_000_000, &envelope);
        }
        machine.image().pieces().flat_map(|piece| framed(&piece)).collect::<Vec<u8>>()
    };
    vec![
        of(Machine::new(3), Vec::new()),
        of(Machine::new(3), coterie_fuzz::envelopes()),
        of(Machine::management(), coterie_fuzz::directory()),
    ]
}
