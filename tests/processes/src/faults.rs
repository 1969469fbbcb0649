//! What goes wrong.

use std::time::Duration;

use coterie_workloads::chance::Chance;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// SIGKILL of a sidecar.
    Kill,
    /// SIGKILL of the sidecar beside which a group's leader is.
    KillLeader,
    /// SIGKILL of all sidecars at once.
    KillAll,
    /// SIGSTOP of a sidecar, and SIGCONT some time later.
    Stop,
    /// The same of the one beside which a group's leader is, for longer than its session lives.
    StopLeader,
    /// SIGTERM of a sidecar, which ends in order.
    Terminate,
    /// A volume is full.
    FullDisk,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Kill, Self::KillLeader, Self::KillAll, Self::Stop, Self::StopLeader, Self::Terminate, Self::FullDisk];

    /// Each as often as there are rounds, in an order that chance decides.
    pub(crate) fn deck(chance: &Chance, rounds: usize) -> Vec<Self> {
        let mut deck: Vec<Self> = Self::ALL.into_iter().cycle().take(Self::ALL.len() * rounds).collect();
        for last in (1..deck.len()).rev() {
            let other = usize::try_from(chance.below(last as u64 + 1)).expect("below the length of a list");
            deck.swap(last, other);
        }
        deck
    }

    /// How long it lasts.
    pub(crate) fn lasts(self, chance: &Chance) -> Duration {
        match self {
            Self::Kill | Self::KillLeader | Self::KillAll | Self::Terminate => chance.ms(0, 4_000),
            Self::Stop => chance.ms(50, 6_000),
            Self::StopLeader => chance.ms(6_000, 10_000),
            Self::FullDisk => chance.ms(500, 5_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_happens_in_every_round_and_another_seed_has_another_order() {
        let deck = |seed| Kind::deck(&Chance::of(seed, "faults"), 3);
        for kind in Kind::ALL {
            assert_eq!(deck(1).into_iter().filter(|it| *it == kind).count(), 3, "{kind:?}");
        }
        assert_eq!(deck(1), deck(1));
        assert_ne!(deck(1), deck(2));
    }
}
