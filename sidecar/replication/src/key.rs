//! The name of a partition in the store.

use coterie_core::PartitionId;

/// Longer names, and names of other characters, are stored under a part of them and a hash: the store and file systems
/// bound names.
const PLAIN_BYTES_MAX: usize = 63;

/// The name under which a partition's log and snapshot are stored, for [`coterie_store::Log::remove_partition`] and
/// [`coterie_store::Snapshots::remove`] once the partition is gone. A partition group that is made again under its name
/// has another generation and so another key.
pub fn storage_key(id: &PartitionId, generation: u64) -> String {
    let name = id.group.as_str();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.len() <= PLAIN_BYTES_MAX && name.chars().all(plain) {
        return format!("{name}-{}-{generation}", id.index);
    }
    let part: String = name.chars().filter(|c| plain(*c)).take(PLAIN_BYTES_MAX / 2).collect();
    // `~` is not plain, so no name that is stored as it is looks like this.
    format!("{part}~{:016x}-{}-{generation}", fnv1a(name.as_bytes()), id.index)
}

/// Fowler, Noll and Vo's hash FNV-1a (draft-eastlake-fnv, section 2); never changed, since keys are on disks.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, index: u32, generation: u64) -> String {
        storage_key(&PartitionId { group: name.into(), index }, generation)
    }

    #[test]
    fn keys_differ_by_name_index_and_generation_and_never_change() {
        assert_eq!(key("data", 1, 0), "data-1-0");
        assert_eq!(key("data", 1, 7), "data-1-7");
        assert_eq!(key("data.eu", 12, 0), "dataeu~23f446b01a94906b-12-0");
        assert_ne!(key("data.eu", 1, 0), key("dataeu.", 1, 0));
        let longest = "n".repeat(253);
        assert!(key(&longest, u32::MAX, u64::MAX).len() < 128);
    }
}
