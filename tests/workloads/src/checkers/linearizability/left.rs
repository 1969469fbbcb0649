//! What the search has not taken yet.

/// A call, or an answer, of the operation of this number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Call(usize),
    Answer(usize),
}

/// The events of operations that are not taken, in order: a list from which any can be taken and put back in the reverse
/// order.
pub(super) struct Left {
    /// Of each event the next one, and the one before; the last place stands for both ends.
    next: Vec<usize>,
    before: Vec<usize>,
    /// Where each operation's call is, and its answer.
    pub(super) calls: Vec<usize>,
    answers: Vec<Option<usize>>,
}

impl Left {
    pub(super) fn new(events: &[Event], operations: usize) -> Self {
        let end = events.len();
        let next = (0..=end).map(|place| if place == end { 0 } else { place + 1 }).collect();
        let before = (0..=end).map(|place| if place == 0 { end } else { place - 1 }).collect();
        let (mut calls, mut answers) = (vec![0; operations], vec![None; operations]);
        for (place, event) in events.iter().enumerate() {
            match event {
                Event::Call(number) => calls[*number] = place,
                Event::Answer(number) => answers[*number] = Some(place),
            }
        }
        Self { next, before, calls, answers }
    }

    fn end(&self) -> usize {
        self.next.len() - 1
    }

    pub(super) fn first(&self) -> Option<usize> {
        self.after(self.end())
    }

    pub(super) fn after(&self, place: usize) -> Option<usize> {
        Some(self.next[place]).filter(|next| *next != self.end())
    }

    pub(super) fn take(&mut self, number: usize) {
        for place in [Some(self.calls[number]), self.answers[number]].into_iter().flatten() {
            let (before, next) = (self.before[place], self.next[place]);
            self.next[before] = next;
            self.before[next] = before;
        }
    }

    pub(super) fn put_back(&mut self, number: usize) {
        for place in [self.answers[number], Some(self.calls[number])].into_iter().flatten() {
            let (before, next) = (self.before[place], self.next[place]);
            self.next[before] = place;
            self.before[next] = place;
        }
    }
}
