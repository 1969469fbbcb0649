//! Every bound of the system, with its reason.

/// Bytes of a name (group, partition group, member): fits a URL, a label and a log line.
pub const NAME_BYTES_MAX: usize = 253;
/// Bytes of one request over gRPC or HTTP: an order of magnitude above what coordination needs.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one member's metadata, keys and values together: it is in every snapshot and every listing.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Members of one group: a listing stays below a few megabytes.
pub const GROUP_MEMBERS_MAX: u32 = 10_000;
/// Groups of one partition.
pub const GROUPS_MAX: usize = 100_000;
/// Bytes of a key of a map: fits a URL, and a page of them fits a message.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Bytes of a value of a map: no request can bring more.
pub const VALUE_BYTES_MAX: usize = REQUEST_BYTES_MAX;
/// Maps of one partition.
pub const MAPS_MAX: usize = 100_000;
/// Entries of all maps of one partition: their keys and what holds them stay below a few hundred megabytes.
pub const ENTRIES_MAX: usize = 1_000_000;
/// Bytes of keys and values of all maps of one partition: with everything else, a snapshot stays below a gigabyte.
pub const ENTRIES_BYTES_MAX: usize = 768 * 1024 * 1024;
/// Entries of one page of a listing.
pub const PAGE_ENTRIES_MAX: u32 = 1_000;
/// Entries of one page that states no limit.
pub const PAGE_ENTRIES_DEFAULT: u32 = 100;
/// Bytes of keys and values after which a page ends, whatever its limit. It has one entry at least.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Locks of one partition that somebody holds; free ones take no memory.
pub const LOCKS_MAX: usize = 100_000;
/// Who waits for one lock: a view of the queue stays small.
pub const LOCK_WAITERS_MAX: usize = 1_000;
/// The longest wait for a lock over a stream of operations, in milliseconds: a place that nobody wants any more does not
/// stay for ever. A single call waits no longer than its deadline.
pub const LOCK_WAIT_MS_MAX: u64 = 3_600_000;
/// Sessions of one partition, past which no further member gets one; a member that has one may have more, of earlier runs.
pub const SESSIONS_MAX: usize = 100_000;
/// Sessions of one member in a partition: those of earlier runs, which did not end them, stay until they expire.
pub const SESSIONS_PER_MEMBER_MAX: usize = 16;
/// Primitives of one cluster: the directory is held by every member.
pub const PRIMITIVES_MAX: usize = 100_000;
/// Partition groups of one cluster.
pub const PARTITION_GROUPS_MAX: usize = 64;
/// Partitions of one partition group: each costs CPU on every replica.
pub const PARTITIONS_MAX: u32 = 128;
/// Members of one cluster.
pub const CLUSTER_MEMBERS_MAX: usize = 1_000;
/// Results kept per client (D11).
pub const RESULTS_PER_CLIENT_MAX: usize = 128;
/// Clients that a partition remembers (D11): their results, or at least how far they had come.
pub const CLIENTS_MAX: usize = 10_000;
/// How long the results of a client are kept after its newest request was issued, in milliseconds, by the clocks of the client
/// and of the leader (D11).
pub const RESULT_AGE_MS_MAX: u64 = 600_000;
/// How far a client's clock may run ahead of the partition's logical time, in milliseconds.
pub const CLIENT_CLOCK_AHEAD_MS_MAX: u64 = 300_000;
/// The shortest session time-out.
pub const SESSION_TTL_MS_MIN: u64 = 1_000;
/// The default session time-out.
pub const SESSION_TTL_MS_DEFAULT: u64 = 5_000;
/// The longest session time-out.
pub const SESSION_TTL_MS_MAX: u64 = 3_600_000;
/// The longest release time-out.
pub const RELEASE_TIMEOUT_MS_MAX: u64 = 3_600_000;
/// Events that a partition keeps for watches that resume.
pub const EVENTS_KEPT: usize = 4_096;
/// Bytes of the events that a partition keeps: values of maps may be large.
pub const EVENTS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Events that may wait for one slow watcher before it is told to resync.
pub const WATCHER_QUEUE_MAX: usize = 1_024;
/// Bytes of the events that may wait for one slow watcher before it is told to resync.
pub const WATCHER_QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Watches of one sidecar.
pub const WATCHES_MAX: usize = 10_000;
/// A request's deadline when it states none.
pub const DEADLINE_MS_DEFAULT: u64 = 5_000;
/// The longest deadline.
pub const DEADLINE_MS_MAX: u64 = 60_000;

const _: () = assert!(KEY_BYTES_MAX < PAGE_BYTES_MAX);
const _: () = assert!(METADATA_BYTES_MAX < REQUEST_BYTES_MAX);
const _: () = assert!(SESSION_TTL_MS_MIN <= SESSION_TTL_MS_DEFAULT && SESSION_TTL_MS_DEFAULT <= SESSION_TTL_MS_MAX);
