//! When certificates are made and renewed. Times are seconds since 1970.

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

#[cfg(test)]
mod tests {
    use super::*;

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
