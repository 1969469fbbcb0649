//! Watches: no gap, no duplicate, in order, the same for all; what is acknowledged is told (S17, S34, D17).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

/// The place of an event: its revision, and its number among those of that revision.
pub type Place = (u64, u32);

/// What a watcher was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// All of it, as of this revision: nothing before counts.
    View(u64),
    /// The next event.
    Event(Place, String),
}

/// Reads the id of an event. `None` if it is none.
pub fn place(id: &str) -> Option<Place> {
    let mut parts = id.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// What one watcher was told of a primitive from one view of it to the next, without a gap.
pub struct Stretch<'a> {
    watcher: &'a str,
    from: u64,
    /// In order.
    pub events: BTreeMap<Place, &'a str>,
}

impl Stretch<'_> {
    fn covers(&self, place: Place) -> bool {
        place.0 > self.from && self.events.last_key_value().is_some_and(|(last, _)| place <= *last)
    }
}

/// What the watchers of a primitive were told, by watcher.
pub type ToldAll = BTreeMap<String, Vec<Told>>;

/// Stretches of what watchers of one primitive were told.
///
/// # Errors
/// An event that comes again, out of order, or before there is a view.
pub fn stretches<'a>(of: &str, told: &'a ToldAll) -> Result<Vec<Stretch<'a>>> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for (watcher, told) in told {
        let before = stretches.len();
        for one in told {
            match (one, stretches[before..].last_mut()) {
                (Told::View(from), _) => stretches.push(Stretch { watcher, from: *from, events: BTreeMap::new() }),
                (Told::Event(place, _), None) => bail!("{watcher} of {of}: {place:?} before any view"),
                (Told::Event(place, what), Some(stretch)) => {
                    let last = stretch.events.last_key_value().map(|(last, _)| *last);
                    if place.0 <= stretch.from || last.is_some_and(|last| *place <= last) {
                        let from = stretch.from;
                        bail!("{watcher} of {of}: {place:?} {what} again or out of order; view {from}, last {last:?}");
                    }
                    stretch.events.insert(*place, what);
                }
            }
        }
    }
    Ok(stretches)
}

/// Checks what all watchers of one primitive were told; `acknowledged` has what changes say that were acknowledged, by
/// their revision.
///
/// # Errors
/// The first promise that was broken.
pub fn check(of: &str, stretches: &[Stretch], acknowledged: &BTreeMap<u64, String>) -> Result<()> {
    let mut all: BTreeMap<Place, (&str, &str)> = BTreeMap::new();
    for stretch in stretches {
        for (place, what) in &stretch.events {
            let (first, said) = *all.entry(*place).or_insert((stretch.watcher, what));
            if said != *what {
                bail!("{of} at {place:?}: {first} was told {said}, {} {what}", stretch.watcher);
            }
        }
    }
    for stretch in stretches {
        let watcher = stretch.watcher;
        for (place, (other, what)) in &all {
            if stretch.covers(*place) && !stretch.events.contains_key(place) {
                bail!("{watcher} of {of}: was not told {place:?} {what}, which {other} was");
            }
        }
        let at: BTreeSet<(u64, &str)> = stretch.events.iter().map(|(place, what)| (place.0, *what)).collect();
        for (revision, what) in acknowledged {
            if stretch.covers((*revision, 0)) && !at.contains(&(*revision, what.as_str())) {
                bail!("{watcher} of {of}: was not told {what} of revision {revision}, which was acknowledged");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: u64, ordinal: u32, what: &str) -> Told {
        Told::Event((revision, ordinal), what.to_owned())
    }

    fn checked(told: &[(&str, &[Told])], acknowledged: &[(u64, &str)]) -> String {
        let told = told.iter().map(|(watcher, told)| ((*watcher).to_owned(), told.to_vec())).collect();
        let acknowledged = acknowledged.iter().map(|(revision, what)| (*revision, (*what).to_owned())).collect();
        let result = stretches("m", &told).and_then(|stretches| check("m", &stretches, &acknowledged));
        result.map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_is_told_in_order_and_whole_is_right() {
        let a = [Told::View(3), event(4, 0, "x"), event(4, 1, "y"), event(7, 0, "z")];
        let b = [Told::View(4), event(7, 0, "z"), Told::View(9), event(11, 0, "w")];
        assert_eq!(checked(&[("a", &a), ("b", &b)], &[(4, "x"), (7, "z"), (9, "not covered"), (12, "nor this")]), "");
    }

    #[test]
    fn gaps_duplicates_other_content_and_what_nobody_was_told_are_found() {
        let whole = [Told::View(3), event(4, 0, "x"), event(5, 0, "y"), event(6, 0, "z")];
        for (told, expected) in [
            (vec![Told::View(3), event(4, 0, "x"), event(6, 0, "z")], "was not told (5, 0) y"),
            (vec![Told::View(3), event(4, 0, "x"), event(4, 0, "x")], "again or out of order"),
            (vec![Told::View(4), event(4, 0, "x")], "again or out of order"),
            (vec![Told::View(3), event(4, 0, "other")], "was told"),
            (vec![event(4, 0, "x")], "before any view"),
        ] {
            let said = checked(&[("a", &whole), ("b", &told)], &[]);
            assert!(said.contains(expected), "{said}");
        }
        let lost = [Told::View(3), event(4, 0, "x"), event(6, 0, "z")];
        assert!(checked(&[("a", &lost)], &[(5, "y")]).contains("y of revision 5"));
    }

    #[test]
    fn ids_are_read() {
        assert_eq!(place("17.3.9f3ac07e"), Some((17, 3)));
        assert_eq!((place(""), place("17"), place("a.b")), (None, None, None));
    }
}
