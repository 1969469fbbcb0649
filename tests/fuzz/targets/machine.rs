//! A log of commands that chance made, applied: `coterie_core::machine`. The leader of another version, or a sidecar that is
//! not checked, could propose any of them.
//!
//! ```text
//! role u8 | elapsed u8, command or question, framed | …
//! ```
#![no_main]

use coterie_core::Revision;
use coterie_core::command::{self, Envelope, Query};
use coterie_core::machine::Machine;
use coterie_core::machine::snapshot::{PIECE_BYTES_MAX, Restorer};
use coterie_fuzz::{Input, framed};

libfuzzer_sys::fuzz_target!(init: coterie_fuzz::seeds(seeds), |bytes: &[u8]| {
    let mut input = Input(bytes);
    let mut machine = match input.byte() {
        role if role & 1 == 1 => Machine::management(),
        role => Machine::new(u64::from(role >> 1)),
    };
    let mut now_ms = 1_000_000;
    loop {
        // Also back, as clocks of leaders go.
        let elapsed = input.byte();
        now_ms = if elapsed < 250 { now_ms + u64::from(elapsed) * 4_000 } else { now_ms - 900_000 };
        now_ms = now_ms.max(1_000_000);
        let Some(part) = input.part() else { break };
        if let Ok(envelope) = command::decode::<Envelope>("command", part) {
            let revision = Revision(machine.revision().0 + 1);
            let before = machine.logical_ms();
            let applied = machine.apply(revision, now_ms, &envelope);
            assert!(machine.revision() == revision && machine.logical_ms() >= before);
            assert!(applied.events.iter().all(|event| event.id.revision == revision));
            for event in &applied.events {
                machine.view(&event.of);
            }
        }
        if let Ok(query) = command::decode::<Query>("query", part) {
            let _ = machine.query(&query);
        }
    }
    comes_back(&machine);
});

/// A replica that is sent this state has this state.
fn comes_back(machine: &Machine) {
    let mut restorer = Restorer::new();
    for piece in machine.image().pieces() {
        assert!(piece.len() <= PIECE_BYTES_MAX, "a piece has {} bytes", piece.len());
        restorer.take(&piece).expect("it was made just now");
    }
    assert!(restorer.finish().expect("all pieces came") == *machine);
}

fn seeds() -> Vec<Vec<u8>> {
    let log = |role: u8, envelopes: Vec<Envelope>| {
        let parts = envelopes.iter().flat_map(|envelope| [vec![1], framed(&command::encode(envelope))].concat());
        [role].into_iter().chain(parts).collect::<Vec<u8>>()
    };
    let alone = coterie_fuzz::envelopes().into_iter().map(|envelope| log(2, vec![envelope]));
    alone.chain([log(2, coterie_fuzz::envelopes()), log(1, coterie_fuzz::directory())]).collect()
}
