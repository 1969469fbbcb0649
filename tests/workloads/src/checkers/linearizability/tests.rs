use super::*;

/// Operations by their calls and answers, in the order of time: `(client, call)` begins one, `(client, answer)` ends it.
struct Told {
    operations: Vec<Operation>,
    now: u64,
}

impl Told {
    fn new() -> Self {
        Self { operations: Vec::new(), now: 0 }
    }

    fn call(mut self, client: &str, call: Call) -> Self {
        self.now += 1;
        let (client, key) = (client.to_owned(), "k".to_owned());
        self.operations.push(Operation { client, key, call, called: self.now, answered: None });
        self
    }

    fn answer(mut self, client: &str, answer: Answer) -> Self {
        self.now += 1;
        let of = |operation: &&mut Operation| operation.client == client && operation.answered.is_none();
        let operation = self.operations.iter_mut().rev().find(of).expect("it was called");
        operation.answered = Some((self.now, answer));
        self
    }

    /// Called and answered at once.
    fn done(self, client: &str, call: Call, answer: Answer) -> Self {
        self.call(client, call).answer(client, answer)
    }

    fn is_linearizable(&self) -> bool {
        check(&self.operations).is_ok()
    }
}

const fn put(value: u64) -> Call {
    Call::Write(value, Only::Always)
}

const fn changed(revision: u64, previous: u64) -> Answer {
    Answer::Changed { revision, previous }
}

const fn holds(value: u64, revision: u64) -> Answer {
    Answer::Holds(Some((value, revision)))
}

#[test]
fn one_after_the_other_each_finds_what_the_one_before_left() {
    let told = Told::new()
        .done("a", Call::Read, Answer::Holds(None))
        .done("a", put(1), changed(10, 0))
        .done("b", Call::Read, holds(1, 10))
        .done("b", Call::Write(2, Only::IfRevision(10)), changed(11, 10))
        .done("a", Call::Write(3, Only::IfRevision(10)), Answer::Refused)
        .done("a", Call::Delete(Only::Always), changed(12, 11))
        .done("a", Call::Delete(Only::IfRevision(11)), Answer::Refused)
        .done("a", Call::Delete(Only::Always), changed(13, 0))
        .done("b", Call::Write(4, Only::IfAbsent), changed(14, 0));
    assert!(told.is_linearizable());
}

#[test]
fn a_read_that_is_stale_is_found() {
    let told = Told::new().done("a", put(1), changed(10, 0)).done("a", put(2), changed(11, 10)).done(
        "b",
        Call::Read,
        holds(1, 10),
    );
    assert!(!told.is_linearizable());
    let said = check(&told.operations).expect_err("as above").to_string();
    assert!(said.starts_with("k is not linearizable: 2 operations in, nothing explains Read of b at 5"), "{said}");
}

#[test]
fn a_write_that_was_acknowledged_and_is_gone_is_found() {
    let told = Told::new().done("a", put(1), changed(10, 0)).done("b", Call::Read, Answer::Holds(None));
    assert!(!told.is_linearizable());
}

#[test]
fn what_overlaps_may_come_in_any_order_but_in_one() {
    let begun = || Told::new().call("a", put(1)).call("b", put(2));
    let both = |told: Told| told.answer("a", changed(10, 0)).answer("b", changed(11, 10));
    assert!(both(begun()).done("c", Call::Read, holds(2, 11)).is_linearizable());
    assert!(!both(begun()).done("c", Call::Read, holds(1, 10)).is_linearizable(), "the answers say which was first");
    let told = begun().call("c", Call::Read).call("d", Call::Read);
    let told = told.answer("c", holds(2, 11)).answer("d", holds(1, 10));
    assert!(both(told).is_linearizable(), "one reads what is about to be overwritten");
}

#[test]
fn what_is_not_known_may_have_happened_at_any_time_or_never() {
    let lost = || Told::new().done("a", put(1), changed(10, 0)).call("b", put(2));
    assert!(lost().done("c", Call::Read, holds(1, 10)).is_linearizable());
    assert!(lost().done("c", Call::Read, holds(1, 10)).done("c", Call::Read, holds(2, 12)).is_linearizable());
    let back = lost().done("c", Call::Read, holds(2, 12)).done("c", Call::Read, holds(1, 10));
    assert!(!back.is_linearizable(), "what has happened does not go away");
    let before = Told::new().done("c", Call::Read, holds(2, 12)).call("b", put(2));
    assert!(!before.is_linearizable(), "nothing happens before it is called");
}

#[test]
fn a_condition_that_did_not_hold_and_was_taken_is_found() {
    let told = Told::new().done("a", put(1), changed(10, 0)).done("a", put(2), changed(11, 10)).done(
        "b",
        Call::Write(3, Only::IfRevision(10)),
        changed(12, 11),
    );
    assert!(!told.is_linearizable());
    let told = Told::new().done("a", put(1), changed(10, 0)).done("b", Call::Write(3, Only::IfAbsent), changed(12, 10));
    assert!(!told.is_linearizable());
}

#[test]
fn a_condition_on_a_revision_that_was_overwritten_is_found_also_where_the_answer_was_lost() {
    let lost = || Told::new().done("a", put(1), changed(10, 0)).call("b", put(2));
    let overwritten = lost().done("c", Call::Write(3, Only::IfRevision(10)), Answer::Refused);
    assert!(overwritten.is_linearizable());
    assert!(!overwritten.done("d", Call::Write(4, Only::IfRevision(10)), changed(12, 10)).is_linearizable());
    let other = lost().done("c", Call::Write(3, Only::IfRevision(10)), changed(12, 11));
    assert!(!other.is_linearizable(), "it found another revision than it asked for");
    let there = Told::new().call("b", put(2)).done("c", Call::Write(3, Only::IfAbsent), Answer::Refused);
    assert!(there.is_linearizable());
    assert!(!there.done("d", put(4), changed(12, 0)).is_linearizable(), "something was there");
}

#[test]
fn what_a_later_answer_says_of_the_revision_of_a_lost_write_has_to_fit_its_place() {
    let lost = || Told::new().done("a", put(1), changed(10, 0)).call("b", put(2));
    assert!(lost().done("c", put(3), changed(12, 11)).is_linearizable());
    assert!(!lost().done("c", put(3), changed(12, 9)).is_linearizable(), "it came after 10");
    assert!(!lost().done("c", put(3), changed(12, 13)).is_linearizable(), "it came before 12");
    assert!(!lost().done("c", put(3), changed(12, 12)).is_linearizable(), "12 is another's");
    let two = || lost().call("e", put(4));
    assert!(two().done("c", put(3), changed(12, 11)).is_linearizable(), "one of the two came later, or never");
    let both = two().done("r", Call::Read, holds(2, 11)).done("c", put(3), changed(13, 12));
    assert!(both.is_linearizable());
    let none_between = two().done("r", Call::Read, holds(2, 11)).done("c", put(3), changed(12, 10));
    assert!(!none_between.is_linearizable(), "what was read was not overwritten");
}

#[test]
fn a_read_that_tells_the_revision_of_a_lost_write_places_it_among_the_others() {
    let lost = || Told::new().done("a", put(1), changed(10, 0)).call("b", put(2));
    assert!(lost().done("c", Call::Read, holds(2, 11)).done("a", put(3), changed(12, 11)).is_linearizable());
    assert!(!lost().done("c", Call::Read, holds(2, 9)).is_linearizable(), "it came after 10");
    let later = lost().done("c", Call::Read, holds(2, 13)).done("a", put(3), changed(12, 13));
    assert!(!later.is_linearizable(), "it came before 12");
    let other = lost().done("c", Call::Read, holds(2, 11)).done("a", put(3), changed(13, 12));
    assert!(!other.is_linearizable(), "it was said to be at 11");
}

#[test]
fn a_deletion_that_nobody_answered_has_a_revision_too() {
    let deleted = || Told::new().done("a", put(1), changed(10, 0)).call("b", Call::Delete(Only::Always));
    assert!(deleted().done("c", put(2), changed(12, 0)).is_linearizable());
    assert!(!deleted().done("c", put(2), changed(11, 0)).is_linearizable(), "none is between 10 and 11");
    let nothing = Told::new().call("b", Call::Delete(Only::Always)).done("c", put(2), changed(1, 0));
    assert!(nothing.is_linearizable(), "it deletes nothing, or comes later");
}

#[test]
fn what_a_refused_condition_says_of_the_revision_of_a_lost_write_is_remembered() {
    let there = || Told::new().call("b", put(2)).done("c", Call::Write(3, Only::IfAbsent), Answer::Refused);
    let refused = |told: Told, at| told.done("c", Call::Write(4, Only::IfRevision(at)), Answer::Refused);
    assert!(refused(there(), 6).done("c", put(5), changed(7, 5)).is_linearizable());
    assert!(!refused(there(), 5).done("c", put(5), changed(7, 5)).is_linearizable(), "it is not at 5");
    let all_below_3 = || refused(refused(there(), 1), 2);
    assert!(all_below_3().done("c", put(5), changed(4, 3)).is_linearizable());
    assert!(!all_below_3().call("d", put(6)).done("r", Call::Read, holds(6, 3)).is_linearizable(), "2 is at 3");
}

#[test]
fn a_lost_write_whose_condition_names_the_revision_of_another_comes_after_it() {
    let lost = || Told::new().call("b", put(2)).call("c", Call::Write(3, Only::IfRevision(5)));
    assert!(lost().done("r", Call::Read, holds(3, 6)).is_linearizable());
    assert!(!lost().done("r", Call::Read, holds(3, 4)).is_linearizable(), "4 is before 5");
    let found = |at| lost().done("d", put(4), changed(8, at)).done("r", Call::Read, holds(4, 8));
    assert!(found(5).is_linearizable() && found(7).is_linearizable());
}

#[test]
fn revisions_that_do_not_rise_or_are_of_two_changes_are_found() {
    let told = Told::new().done("a", put(1), changed(10, 0)).done("a", put(2), changed(9, 10));
    assert!(!told.is_linearizable());
    let told = Told::new().done("a", put(1), changed(10, 0)).done("a", put(2), changed(10, 10));
    assert!(!told.is_linearizable());
}

#[test]
fn a_change_that_was_made_twice_is_found() {
    let told = Told::new().done("a", put(1), changed(10, 0)).done("b", put(2), changed(11, 10)).done(
        "c",
        Call::Read,
        holds(1, 12),
    );
    let said = check(&told.operations).expect_err("it was applied again").to_string();
    assert!(said.contains("value 1 was written at revision 10 and at 12"), "{said}");
}

#[test]
fn many_that_overlap_and_are_not_known_are_searched_in_little_time() {
    let mut told = Told::new();
    for round in 0..5 {
        for client in ["a", "b", "c"] {
            told = told.call(client, put(1_000 * round + u64::from(client.as_bytes()[0])));
        }
        let value = 1_000 * round + u64::from(b'b');
        told = told.done("r", Call::Read, holds(value, round + 1));
    }
    assert!(told.is_linearizable());
    let told = told.done("r", Call::Read, holds(77, 99));
    assert!(!told.is_linearizable(), "nobody has written it");
}
