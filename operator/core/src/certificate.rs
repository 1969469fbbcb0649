//! When certificates are made and renewed, and how one authority follows another. Times are seconds since 1970.
//!
//! Members and client sidecars get their files at different moments, so an authority that is new (the former one's Secret
//! was lost, or a person put another there) is first trusted, then used, and only then trusted alone ([`phase`]):
//!
//! ```text
//!               Introduce              Replace                Settled
//!   tls.crt     the former one's       the present one's      the present one's
//!   ca.crt      both                   both                   the present one
//!               ├── OVERLAP_SECONDS ───┼── OVERLAP_SECONDS ───┤
//! ```

/// How long an authority is valid: ten years. It is not renewed in this version.
pub const AUTHORITY_SECONDS: i64 = 10 * 365 * 24 * 3600;
/// How long a certificate is valid: 90 days.
pub const LEAF_SECONDS: i64 = 90 * 24 * 3600;
/// How far before now a certificate begins: clocks of nodes differ.
pub const BACKDATE_SECONDS: i64 = 3600;

/// The annotation of a Secret that says when its certificate begins.
pub const NOT_BEFORE: &str = "coterie.dev/not-before";
/// The annotation of a Secret that says when its certificate ends.
pub const NOT_AFTER: &str = "coterie.dev/not-after";
/// The annotation of a Secret that names the authority that signed its certificate.
pub const AUTHORITY: &str = "coterie.dev/authority";

/// The annotation of a Secret that says since when it has its certificate with just these authorities.
pub const SINCE: &str = "coterie.dev/authorities-since";

/// How long a Secret is left as it is after an authority came or a certificate changed, before the next step: ten minutes.
/// The kubelet takes up to two to bring a Secret to its pods and a sidecar reads its files every five seconds; the rest is
/// for nodes that are late.
pub const OVERLAP_SECONDS: i64 = 600;

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its first second.
    pub not_before: i64,
    /// Its last second.
    pub not_after: i64,
}

impl Validity {
    /// Of an authority that is made now.
    pub fn authority(now: i64) -> Self {
        Self { not_before: now - BACKDATE_SECONDS, not_after: now + AUTHORITY_SECONDS }
    }

    /// Of a certificate that is made now.
    pub fn leaf(now: i64) -> Self {
        Self { not_before: now - BACKDATE_SECONDS, not_after: now + LEAF_SECONDS }
    }

    /// Whether two thirds of it are over, so that a third is left for the renewal to fail and be repaired.
    pub fn is_due(self, now: i64) -> bool {
        let length = self.not_after.saturating_sub(self.not_before);
        now >= self.not_before.saturating_add(length / 3 * 2) || now < self.not_before
    }
}

/// A certificate that was issued, seen from the present authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Whether the present authority signed it.
    pub is_signed: bool,
    /// Whether the authorities beside it have the present one among them.
    pub is_trusting: bool,
    /// Whether they have others among them.
    pub has_others: bool,
    /// Since when it is there with these.
    pub since: i64,
    /// From when to when it is valid.
    pub validity: Validity,
}

/// How far an authority has followed another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// All certificates are the present one's, and it is trusted alone.
    Settled,
    /// Certificates stay, and both are trusted, until this second.
    Introduce(i64),
    /// Certificates are the present one's, and both are trusted, until this second.
    Replace(i64),
}

/// How far the present authority is with the certificates that are there. All of them go together: who has one of them must
/// trust who has another.
pub fn phase(leaves: &[Leaf], now: i64) -> Phase {
    let end = |leaf: &Leaf| leaf.since.min(now).saturating_add(OVERLAP_SECONDS);
    // One that is the present authority's already does not begin the waiting anew.
    let former = || leaves.iter().filter(|leaf| !leaf.is_signed);
    let introduced = former().map(|leaf| if leaf.is_trusting { end(leaf) } else { now + OVERLAP_SECONDS }).max();
    if let Some(until) = introduced {
        // A certificate that has run out serves nobody any more.
        let is_over = former().any(|leaf| leaf.validity.not_after <= now);
        return if now < until && !is_over { Phase::Introduce(until) } else { Phase::Replace(now + OVERLAP_SECONDS) };
    }
    let until = leaves.iter().filter(|leaf| leaf.has_others).map(end).max();
    until.filter(|until| now < *until).map_or(Phase::Settled, Phase::Replace)
}

/// What is to be done with one certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// Other authorities beside it.
    Trust,
    /// Another certificate.
    Issue,
}

/// What is to be done with a certificate that may be there.
pub fn step(phase: Phase, leaf: Option<&Leaf>, now: i64) -> Step {
    let Some(leaf) = leaf else { return Step::Issue };
    let is_signed_and_fresh = leaf.is_signed && !leaf.validity.is_due(now);
    match phase {
        Phase::Introduce(_) if leaf.is_trusting => Step::Keep,
        Phase::Introduce(_) => Step::Trust,
        Phase::Replace(_) | Phase::Settled if !is_signed_and_fresh => Step::Issue,
        Phase::Replace(_) if leaf.is_trusting => Step::Keep,
        Phase::Settled if leaf.is_trusting && !leaf.has_others => Step::Keep,
        Phase::Replace(_) | Phase::Settled => Step::Trust,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Leaf = Leaf { is_signed: true, is_trusting: true, has_others: false, since: 0, validity: VALID };
    const VALID: Validity = Validity { not_before: -3600, not_after: LEAF_SECONDS };
    const FORMER: Leaf = Leaf { is_signed: false, is_trusting: false, has_others: true, ..NEW };

    #[test]
    fn an_authority_is_trusted_before_it_is_used_and_the_former_one_until_it_is_used_nowhere() {
        let check = |leaves: &[Leaf], now, expected: Phase, steps: &[Step]| {
            assert_eq!(phase(leaves, now), expected, "{leaves:?}");
            let found: Vec<_> = leaves.iter().map(|leaf| step(expected, Some(leaf), now)).collect();
            assert_eq!(found, steps, "{leaves:?}");
        };
        let introduced = |since| Leaf { is_trusting: true, since, ..FORMER };
        let replaced = |since| Leaf { has_others: true, since, ..NEW };
        check(&[NEW, NEW], 1, Phase::Settled, &[Step::Keep, Step::Keep]);
        check(&[FORMER, FORMER], 1, Phase::Introduce(601), &[Step::Trust, Step::Trust]);
        check(&[introduced(1), FORMER], 2, Phase::Introduce(602), &[Step::Keep, Step::Trust]);
        check(&[introduced(1), introduced(2)], 601, Phase::Introduce(602), &[Step::Keep, Step::Keep]);
        check(&[introduced(1), introduced(2)], 602, Phase::Replace(1202), &[Step::Issue, Step::Issue]);
        check(&[replaced(602), introduced(2)], 603, Phase::Replace(1203), &[Step::Keep, Step::Issue]);
        check(&[replaced(602), replaced(603)], 1202, Phase::Replace(1203), &[Step::Keep, Step::Keep]);
        check(&[replaced(602), replaced(603)], 1203, Phase::Settled, &[Step::Trust, Step::Trust]);
        check(&[NEW, replaced(603)], 1204, Phase::Settled, &[Step::Keep, Step::Trust]);
        assert_eq!(step(Phase::Introduce(1), None, 0), Step::Issue);
    }

    #[test]
    fn a_former_authoritys_certificate_that_has_run_out_is_replaced_at_once() {
        let over = Leaf { validity: Validity { not_before: 0, not_after: 10 }, ..FORMER };
        assert_eq!(phase(&[over], 10), Phase::Replace(10 + OVERLAP_SECONDS));
        // And while one is waited for, it is not renewed: its authority is gone.
        let due = Leaf { validity: Validity { not_before: 0, not_after: 10 }, is_trusting: true, ..FORMER };
        assert_eq!(step(phase(&[due], 9), Some(&due), 9), Step::Keep);
    }

    #[test]
    fn a_certificate_that_is_due_is_renewed_also_while_both_are_trusted() {
        let due = Leaf { has_others: true, validity: Validity { not_before: 0, not_after: 9 }, ..NEW };
        assert_eq!(step(phase(&[due], 8), Some(&due), 8), Step::Issue);
    }

    #[test]
    fn certificates_are_renewed_after_two_thirds() {
        let day = 24 * 3600;
        let validity = Validity::leaf(0);
        assert!(!validity.is_due(0));
        assert!(!validity.is_due(59 * day));
        assert!(validity.is_due(60 * day));
    }

    #[test]
    fn a_certificate_of_the_future_is_renewed() {
        assert!(Validity::leaf(1_000_000).is_due(0));
    }
}
