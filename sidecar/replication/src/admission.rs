//! How much may be on its way through one partition.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use coterie_mutants::{Point, rarely};

/// Proposals that may be in flight in one partition: ten round trips' worth at the highest measured rate.
pub(crate) const IN_FLIGHT_MAX: usize = 4_096;
/// Bytes of bodies that may be in flight in one partition.
pub(crate) const IN_FLIGHT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Counts what is in flight.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    proposals: AtomicUsize,
    bytes: AtomicUsize,
}

/// Admitted proposals; dropping it gives their places back.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    count: usize,
    bytes: usize,
}

impl Admission {
    /// Places for `count` proposals of `bytes` together, or `None` if there are not as many.
    pub(crate) fn admit(self: &Arc<Self>, count: usize, bytes: usize) -> Option<Permit> {
        // The permit is made first, so that dropping it undoes both counts.
        let permit = Permit { admission: self.clone(), count, bytes };
        let proposals = self.proposals.fetch_add(count, Ordering::Relaxed) + count;
        let total = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let has_room = proposals <= IN_FLIGHT_MAX && total <= IN_FLIGHT_BYTES_MAX;
        (has_room && !rarely(Point::Overloaded)).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.proposals.fetch_sub(self.count, Ordering::Relaxed);
        self.admission.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_refused_and_a_place_that_is_given_back_can_be_taken() {
        let admission = Arc::new(Admission::default());
        let mut permits: Vec<_> = (0..IN_FLIGHT_MAX).map(|_| admission.admit(1, 1).unwrap()).collect();
        assert!(admission.admit(1, 1).is_none());
        permits.pop();
        let permit = admission.admit(1, 1).unwrap();
        drop((permits, permit));
        let half = admission.admit(1, IN_FLIGHT_BYTES_MAX / 2).unwrap();
        assert!(admission.admit(1, IN_FLIGHT_BYTES_MAX / 2 + 1).is_none());
        drop(half);
        assert!(admission.admit(1, IN_FLIGHT_BYTES_MAX).is_some());
    }
}
