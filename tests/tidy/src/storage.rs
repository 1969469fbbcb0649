//! The smallest volume that a Cluster may ask for is one that a member can work on.

use coterie_crds::cluster::STORAGE_SIZE_MIN;
use coterie_store::limits::{RESERVE_SEGMENTS, SEGMENT_BYTES, SEGMENTS_BEFORE_COPYING};

/// Segments of the log of a member that has less than one segment's worth to hold: those before it copies, two for what is
/// live, the one that is prepared.
const LOG_SEGMENTS: u64 = SEGMENTS_BEFORE_COPYING + 2 + 1;

#[test]
fn the_smallest_volume_has_room_for_the_log_its_reserve_and_a_third_for_snapshots_and_the_file_system() {
    let mebibytes = STORAGE_SIZE_MIN.strip_suffix("Mi").and_then(|number| number.parse::<u64>().ok());
    let bytes = mebibytes.expect("a whole number of mebibytes") << 20;
    let log = (LOG_SEGMENTS + RESERVE_SEGMENTS) * SEGMENT_BYTES;
    assert!(bytes / 3 * 2 >= log, "{STORAGE_SIZE_MIN} are {bytes} bytes, and the log and its reserve take {log}");
}
