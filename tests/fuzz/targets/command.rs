//! Commands, questions and their answers, as sidecars send them to each other: `coterie_core::command`.
//!
//! ```text
//! which u8 | bytes
//! ```
#![no_main]

use std::fmt::Debug;

use coterie_core::command::{self, Answer, Envelope, Event, Outcome, Query, View};
use coterie_core::machine::{Directory, Machine};
use coterie_core::{EventId, GroupName, MapName, Revision};
use coterie_fuzz::Input;
use serde::{Deserialize, Serialize};

libfuzzer_sys::fuzz_target!(init: coterie_fuzz::seeds(seeds), |bytes: &[u8]| {
    let mut input = Input(bytes);
    let which = input.byte();
    let bytes = input.0;
    match which % 8 {
        0 => comes_back::<Envelope>(bytes),
        1 => comes_back::<Query>(bytes),
        2 => comes_back::<Answer>(bytes),
        3 => comes_back::<Outcome>(bytes),
        4 => comes_back::<EventId>(bytes),
        5 => comes_back::<Directory>(bytes),
        6 => comes_back::<Event>(bytes),
        _ => comes_back::<View>(bytes),
    }
});

/// What is taken is the same once it was sent on.
fn comes_back<T: Serialize + for<'a> Deserialize<'a> + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(value) = command::decode::<T>("value", bytes) else { return };
    let again = command::decode::<T>("value", &command::encode(&value)).expect("it was encoded just now");
    assert_eq!(again, value);
}

fn seed<T: Serialize>(which: u8, value: &T) -> Vec<u8> {
    [&[which], &command::encode(value)[..]].concat()
}

fn seeds() -> Vec<Vec<u8>> {
    let mut machine = Machine::new(1);
    let mut seeds = Vec::new();
    for (revision, envelope) in (1..).zip(coterie_fuzz::envelopes()) {
        let applied = machine.apply(Revision(revision), 1_000, &envelope);
        seeds.push(seed(0, &envelope));
        seeds.push(seed(3, &applied.outcome));
        seeds.extend(applied.events.first().map(|event| seed(6, event)));
    }
    let group = GroupName::from("g");
    for query in [Query::Groups, Query::Group(group.clone()), Query::Lock("l".into()), page()] {
        seeds.push(seed(1, &query));
        seeds.extend(machine.query(&query).ok().map(|answer| seed(2, &answer)));
    }
    seeds.push(seed(4, &EventId { revision: Revision(300), ordinal: 2 }));
    seeds.push(seed(5, &Machine::management().directory()));
    seeds.extend(
        [(&group).into(), (&MapName::from("m")).into()]
            .iter()
            .filter_map(|of| machine.view(of))
            .map(|view| seed(7, &view)),
    );
    seeds
}

fn page() -> Query {
    Query::Entries { map: "m".into(), prefix: "k".to_owned(), after: String::new(), limit: 10 }
}
