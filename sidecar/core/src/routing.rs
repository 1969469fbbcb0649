//! Which partition a primitive lives in.
//!
//! First its partition group (D15), from what is asked, the cluster's default and what there is; then its partition,
//! from its kind and name alone. The latter must never change: it is where the data is.

use crate::code::{ErrorCode, Rejection};
use crate::ids::PartitionGroupName;
use crate::machine::Directory;

/// The index, from 1 to `partitions`, of the partition that holds the primitive of this kind and name. The same for
/// ever.
///
/// FNV-1a (64 bits; Fowler, Noll, Vo) over the kind, a zero byte and the name, so that no two pairs read the same; then
/// the finalizer of MurmurHash3 (Appleby), since the low bits of FNV alone are poor.
///
/// # Panics
/// If `partitions` is 0: the directory records no such partition group.
pub fn partition_of(kind: &str, name: &str, partitions: u32) -> u32 {
    assert!(partitions > 0, "a partition group has at least one partition");
    let index = mix(fnv1a(kind.bytes().chain([0]).chain(name.bytes()))) % u64::from(partitions);
    u32::try_from(index).expect("a remainder is below its divisor, which fits") + 1
}

fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// The partition group that a request means (D15): the one it asks for; else the cluster's default; else the only one.
///
/// # Errors
/// `invalid_argument` for `system`; `partition_group_unknown` if there is none of the name, or none at all (S99);
/// `partition_group_ambiguous` if several could be meant. Both list those that are.
pub fn resolve(
    directory: &Directory,
    default: Option<&PartitionGroupName>,
    asked: Option<&PartitionGroupName>,
) -> Result<PartitionGroupName, Rejection> {
    if let Some(name) = asked.or(default) {
        if name.is_system() {
            return Err(reserved("partition_group"));
        }
        if directory.partition_groups.contains_key(name) {
            return Ok(name.clone());
        }
        return Err(partition_group_unknown(directory, name));
    }
    let mut names = directory.partition_groups.keys();
    match (names.next(), names.next()) {
        (Some(only), None) => Ok(only.clone()),
        (None, _) => Err(no_partition_groups()),
        (Some(_), Some(_)) => Err(Rejection::new(
            ErrorCode::PartitionGroupAmbiguous,
            format!("partition_group: name one of {}, or configure default-partition-group", list(directory)),
        )),
    }
}

/// The refusal of the management group's name.
pub(crate) fn reserved(field: &str) -> Rejection {
    Rejection::new(
        ErrorCode::InvalidArgument,
        format!("{field}: the name `system` is reserved for the management group; name another partition group"),
    )
}

/// The refusal of a partition group that is not.
pub(crate) fn partition_group_unknown(directory: &Directory, name: &PartitionGroupName) -> Rejection {
    if directory.partition_groups.is_empty() {
        return no_partition_groups();
    }
    let message = format!("partition_group: there is no `{name}`; there are {}", list(directory));
    Rejection::new(ErrorCode::PartitionGroupUnknown, message)
}

fn no_partition_groups() -> Rejection {
    Rejection::new(
        ErrorCode::PartitionGroupUnknown,
        "partition_group: the cluster has none: a management group alone holds no primitives; create a partition group",
    )
}

fn list(directory: &Directory) -> String {
    let names: Vec<String> = directory.partition_groups.keys().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::command::{PartitionGroupRecord, Protocol};

    fn directory(names: &[&str]) -> Directory {
        let record = |name: &&str| {
            let name = PartitionGroupName::from(*name);
            let record = PartitionGroupRecord {
                name: name.clone(),
                protocol: Protocol::Raft,
                partitions: vec![],
                generation: 0,
            };
            (name, record)
        };
        Directory { partition_groups: names.iter().map(record).collect(), ..Directory::default() }
    }

    fn check(names: &[&str], default: Option<&str>, asked: Option<&str>) -> Result<String, (ErrorCode, String)> {
        let (default, asked) = (default.map(PartitionGroupName::from), asked.map(PartitionGroupName::from));
        resolve(&directory(names), default.as_ref(), asked.as_ref())
            .map(|name| name.0)
            .map_err(|rejection| (rejection.code, rejection.message))
    }

    #[test]
    fn s1_the_partition_of_a_name_never_changes() {
        let golden = [
            ("group", "workers", 3, 3),
            ("group", "workers", 1, 1),
            ("group", "orders", 3, 1),
            ("group", "orders", 128, 104),
            ("group", "", 7, 2),
            ("map", "workers", 128, 125),
            ("group", "größer", 128, 78),
        ];
        let found =
            golden.map(|(kind, name, partitions, _)| (kind, name, partitions, partition_of(kind, name, partitions)));
        assert_eq!(found, golden);
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        // From the reference vectors of draft-eastlake-fnv.
        assert_eq!(fnv1a("".bytes()), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("a".bytes()), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a("foobar".bytes()), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn names_spread_evenly_over_partitions() {
        let mut counts = [0_u32; 8];
        for number in 0..8_000 {
            counts[partition_of("group", &format!("worker-{number}"), 8) as usize - 1] += 1;
        }
        assert!(counts.iter().all(|count| (850..=1_150).contains(count)), "{counts:?}");
    }

    #[test]
    fn d15_the_partition_group_asked_for_wins_over_the_default() {
        assert_eq!(check(&["a", "b"], Some("a"), Some("b")), Ok("b".to_owned()));
        assert_eq!(check(&["a", "b"], Some("a"), None), Ok("a".to_owned()));
    }

    #[test]
    fn d15_the_only_partition_group_is_meant_when_none_is_named() {
        assert_eq!(check(&["a"], None, None), Ok("a".to_owned()));
    }

    #[test]
    fn d15_several_partition_groups_without_a_default_are_listed() {
        let (code, message) = check(&["a", "b"], None, None).unwrap_err();
        assert_eq!(code, ErrorCode::PartitionGroupAmbiguous);
        assert!(message.contains("`a`, `b`"), "{message}");
    }

    #[test]
    fn d15_an_unknown_partition_group_is_refused_with_a_list() {
        for (default, asked) in [(None, Some("c")), (Some("c"), None)] {
            let (code, message) = check(&["a", "b"], default, asked).unwrap_err();
            assert_eq!(code, ErrorCode::PartitionGroupUnknown);
            assert!(message.contains("`c`") && message.contains("`a`, `b`"), "{message}");
        }
    }

    #[test]
    fn d15_the_name_system_is_reserved() {
        let (code, message) = check(&["a"], None, Some("system")).unwrap_err();
        assert_eq!(code, ErrorCode::InvalidArgument);
        assert!(message.contains("reserved"), "{message}");
    }

    #[test]
    fn s99_a_management_group_alone_holds_no_primitives() {
        for asked in [None, Some("a")] {
            let (code, message) = check(&[], None, asked).unwrap_err();
            assert_eq!(code, ErrorCode::PartitionGroupUnknown);
            assert!(message.contains("a management group alone holds no primitives"), "{message}");
        }
    }
}
