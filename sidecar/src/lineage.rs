//! Which life of a partition the id of an event is of.
//!
//! Events are ordered by the place of their commands in their partition. A cluster that is made again, or a partition group that is
//! deleted and made again under its name, begins to count anew: an id of before would name a place that is yet to come, and
//! a watch that resumes after it would skip everything up to there. So ids carry a short word that differs from life to
//! life, and one that is of another life is answered with a resync (D17).

use std::fmt;
use std::str::FromStr;

use coterie_core::{EventId, PartitionId, Rejection, Revision};

use crate::api::call::invalid;

/// FNV-1a with 64 bits.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// One life of one partition. Two have the same word with a chance of 1 to 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage(u32);

impl Lineage {
    /// Of the partition in this cluster, and in this generation of its partition group.
    pub fn of(cluster_id: u128, partition: &PartitionId, generation: u64) -> Self {
        let PartitionId { group, index } = partition;
        let bytes = cluster_id.to_be_bytes().into_iter().chain(generation.to_be_bytes()).chain(index.to_be_bytes());
        let bytes = bytes.chain(group.as_str().bytes());
        let hash = bytes.fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME));
        Self(u32::try_from((hash >> 32) ^ (hash & u64::from(u32::MAX))).expect("both halves have 32 bits"))
    }

    /// The id of an event of this life, for applications: `42.1.9f3ac07e`.
    pub fn id(self, event: EventId) -> String {
        format!("{event}.{self}")
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// An id that an application gives back, and the life that it is of. Without that it counts as of the present one.
///
/// # Errors
/// `invalid_argument`, naming `field`.
pub fn parse(field: &str, text: &str) -> Result<(EventId, Option<Lineage>), Rejection> {
    let parsed = || {
        let mut parts = text.split('.');
        let revision = Revision(number(parts.next()?)?);
        let ordinal = number(parts.next()?)?;
        let word = |word: &str| {
            u32::from_str_radix(word, 16).ok().filter(|_| word.len() == 8 && !word.starts_with('+')).map(Lineage)
        };
        let lineage = match parts.next() {
            Some(text) => Some(word(text)?),
            None => None,
        };
        parts.next().is_none().then_some((EventId { revision, ordinal }, lineage))
    };
    parsed().ok_or_else(|| {
        invalid(field, format_args!("`{text}` is not the id of an event, such as `17.0.9f3ac07e`; watch without it"))
    })
}

/// Digits alone: `parse` would take a sign, too.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(group: &str, index: u32) -> PartitionId {
        PartitionId { group: group.into(), index }
    }

    #[test]
    fn event_ids_are_read_as_they_are_written() {
        let id = EventId { revision: Revision(17), ordinal: 3 };
        let lineage = Lineage::of(7, &partition("data", 1), 0);
        assert_eq!(parse("after", &lineage.id(id)), Ok((id, Some(lineage))));
        assert_eq!(parse("after", "17.3"), Ok((id, None)), "as they were before");
        assert_eq!(Lineage(0xa).id(id), "17.3.0000000a");
        for wrong in
            ["", "17", "17.", ".3", "17.3.", "17.3.5", "17.3.0000000g", "17.3.+000000a", "17.3.0000000a.1", "a.b"]
        {
            assert!(parse("after", wrong).unwrap_err().message.starts_with("after: "), "{wrong}");
        }
    }

    #[test]
    fn s34_d17_each_life_of_each_partition_has_a_word_of_its_own() {
        let lives = [
            Lineage::of(7, &partition("data", 1), 0),
            Lineage::of(8, &partition("data", 1), 0),
            Lineage::of(7, &partition("data", 1), 1),
            Lineage::of(7, &partition("data", 2), 0),
            Lineage::of(7, &partition("other", 1), 0),
        ];
        for (index, life) in lives.iter().enumerate() {
            assert!(lives[..index].iter().all(|other| other != life), "{index}");
        }
        assert_eq!(lives[0], Lineage::of(7, &partition("data", 1), 0));
    }

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_event_id_is_read_as_it_is_written_and_no_other_text_is_one(
            revision in any::<u64>(), ordinal in any::<u32>(), word in any::<u32>(), text in "[0-9a-f.+ -]{0,40}", any in ".*",
        ) {
            let (id, lineage) = (EventId { revision: Revision(revision), ordinal }, Lineage(word));
            prop_assert_eq!(parse("after", &lineage.id(id)), Ok((id, Some(lineage))));
            prop_assert_eq!(parse("after", &id.to_string()), Ok((id, None)));
            for text in [text, any] {
                if let Ok((id, lineage)) = parse("after", &text) {
                    let written = lineage.map_or_else(|| id.to_string(), |lineage| lineage.id(id));
                    prop_assert_eq!(parse("after", &written), Ok((id, lineage)));
                    prop_assert!(text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'.'), "{}", text);
                }
            }
        }
    }
}
