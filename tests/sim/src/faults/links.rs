//! What a link is while several faults lie on it: the worst of what each of them does. So one that ends leaves what the
//! others do.

use std::time::Duration;

use crate::cluster::LATENCY_MAX;

/// A fault of one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// One end.
    pub host: &'static str,
    /// The other.
    pub other: &'static str,
    /// What is wrong.
    pub wrong: Wrong,
}

/// What is wrong with a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Neither hears the other.
    Cut,
    /// `host` does not hear `other`.
    Deaf,
    /// What they send waits until this ends.
    Held,
    /// What they send takes up to so long.
    Slow(Duration),
}

/// The link between two machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    /// Whether what the second sends is lost on its way to the first; and the other way round.
    deaf: (bool, bool),
    /// Whether messages wait, as far as they are not lost.
    is_held: bool,
    latency_max: Duration,
}

impl Link {
    /// What these faults make of the link between two.
    fn of(faults: &[Fault], (one, other): (&str, &str)) -> Self {
        let mut link = Self { deaf: (false, false), is_held: false, latency_max: LATENCY_MAX };
        for fault in faults {
            let is_first = fault.host == one && fault.other == other;
            let is_second = fault.host == other && fault.other == one;
            if !is_first && !is_second {
                continue;
            }
            match fault.wrong {
                Wrong::Cut => link.deaf = (true, true),
                Wrong::Deaf => link.deaf = (link.deaf.0 || is_first, link.deaf.1 || is_second),
                Wrong::Held => link.is_held = true,
                Wrong::Slow(latency) => link.latency_max = link.latency_max.max(latency),
            }
        }
        link
    }
}

/// Makes the link of the ends of `fault`, which has just begun or ended, what the faults that there are now say; `before`
/// are those there were.
pub fn set(sim: &mut turmoil::Sim<'_>, fault: &Fault, before: &[Fault], now: &[Fault]) {
    let Fault { host, other, .. } = *fault;
    let (was, is) = (Link::of(before, (host, other)), Link::of(now, (host, other)));
    // These do the same to both ways and forget what was lost before: what is lost still comes after them.
    match (was.is_held, is.is_held) {
        (_, true) => sim.hold(host, other),
        (true, false) => sim.release(host, other),
        (false, false) => sim.repair(host, other),
    }
    for (is_deaf, from, to) in [(is.deaf.0, other, host), (is.deaf.1, host, other)] {
        if is_deaf {
            sim.partition_oneway(from, to);
        }
    }
    sim.set_link_max_message_latency(host, other, is.latency_max);
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    const fn fault(host: &'static str, other: &'static str, wrong: Wrong) -> Fault {
        Fault { host, other, wrong }
    }

    /// Two machines that tell each other the time, and the faults between them.
    struct World<'a> {
        sim: turmoil::Sim<'a>,
        faults: Vec<Fault>,
        /// Who heard, of what time.
        heard: Rc<RefCell<Vec<(&'static str, u64)>>>,
    }

    impl World<'_> {
        fn new() -> Self {
            let mut sim = turmoil::Builder::new().rng_seed(1).max_message_latency(LATENCY_MAX).build();
            let heard: Rc<RefCell<Vec<_>>> = Rc::default();
            for (host, other) in [("a", "b"), ("b", "a")] {
                let heard = heard.clone();
                sim.host(host, move || {
                    let heard = heard.clone();
                    async move {
                        let socket = turmoil::net::UdpSocket::bind(("0.0.0.0", 1)).await?;
                        let mut message = [0; 8];
                        loop {
                            socket.send_to(&crate::world::now_ms().to_be_bytes(), (other, 1)).await?;
                            let pause = tokio::time::sleep(Duration::from_millis(10));
                            tokio::pin!(pause);
                            loop {
                                tokio::select! {
                                    () = &mut pause => break,
                                    _ = socket.recv_from(&mut message) => {
                                        heard.borrow_mut().push((host, u64::from_be_bytes(message)));
                                    }
                                }
                            }
                        }
                    }
                });
            }
            Self { sim, faults: Vec::new(), heard }
        }

        fn begin(&mut self, fault: Fault) {
            let before = self.faults.clone();
            self.faults.push(fault);
            set(&mut self.sim, &fault, &before, &self.faults);
        }

        fn end(&mut self, fault: Fault) {
            let before = self.faults.clone();
            self.faults.retain(|it| *it != fault);
            set(&mut self.sim, &fault, &before, &self.faults);
        }

        /// Who hears within the next half second; the oldest that is heard.
        fn hear(&mut self) -> (Vec<&'static str>, Option<u64>) {
            let end = self.sim.elapsed() + Duration::from_millis(500);
            self.heard.borrow_mut().clear();
            while self.sim.elapsed() < end {
                self.sim.step().expect("nobody fails");
            }
            let heard = self.heard.borrow();
            let who = ["a", "b"].into_iter().filter(|host| heard.iter().any(|(who, _)| who == host)).collect();
            (who, heard.iter().map(|(_, sent)| *sent).min())
        }
    }

    #[test]
    fn a_fault_that_ends_leaves_what_another_does_to_the_link() {
        let mut world = World::new();
        assert_eq!(world.hear().0, ["a", "b"]);
        let (cut, deaf) = (fault("a", "b", Wrong::Cut), fault("b", "a", Wrong::Deaf));
        world.begin(deaf);
        assert_eq!(world.hear().0, ["a"]);
        world.begin(cut);
        assert!(world.hear().0.is_empty());
        world.end(cut);
        assert_eq!(world.hear().0, ["a"]);
        world.end(deaf);
        assert_eq!(world.hear().0, ["a", "b"]);
    }

    #[test]
    fn what_is_held_comes_when_the_last_that_holds_it_ends_and_nothing_that_was_lost() {
        let mut world = World::new();
        world.hear();
        let (held, deaf) = (fault("a", "b", Wrong::Held), fault("a", "b", Wrong::Deaf));
        let again = fault("b", "a", Wrong::Held);
        let held_at = world.sim.elapsed().as_millis() as u64;
        [held, again, deaf].into_iter().for_each(|fault| world.begin(fault));
        assert!(world.hear().0.is_empty());
        world.end(held);
        assert!(world.hear().0.is_empty(), "another holds it");
        world.end(again);
        let (who, oldest) = world.hear();
        assert_eq!(who, ["b"], "one is deaf still");
        assert!(oldest.is_some_and(|sent| sent < held_at + 20), "{oldest:?} was not held since {held_at}");
    }

    #[test]
    fn of_two_delays_the_longer_counts_and_then_the_other() {
        let (ms, both) = (Duration::from_millis, ("a", "b"));
        let (short, long) = (fault("a", "b", Wrong::Slow(ms(20))), fault("b", "a", Wrong::Slow(ms(200))));
        assert_eq!(Link::of(&[short, long], both).latency_max, ms(200));
        assert_eq!(Link::of(&[short], both).latency_max, ms(20));
        assert_eq!(Link::of(&[fault("a", "c", Wrong::Slow(ms(20)))], both).latency_max, LATENCY_MAX);
    }
}
