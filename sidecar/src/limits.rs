//! Bounds of the shell, with their reasons. What applications can see is in [`coterie_core::limits`].

/// Bytes of one message between peers: a full append of Raft entries, each as large as a request may be, stays below.
pub const PEER_MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Frames that may wait for one peer: the appends of some hundred partitions and all requests of applications fit.
pub const LINK_QUEUE_MAX: usize = 16 * 1024;
/// Bytes that may wait for one peer.
pub const LINK_QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Frames of one message on a link.
pub const LINK_BATCH_MAX: usize = 256;
/// Bytes after which a message on a link takes no more frames: what is behind it waits no longer than this takes.
pub const LINK_BATCH_BYTES_MAX: usize = 256 * 1024;
/// Calls that one link may have under way at the side that answers; more are read once these are done.
pub const LINK_CALLS_MAX: usize = 4 * 1024;
/// Messages of one lane that may wait for its partition: more than replication ever has on their way.
pub const LANE_QUEUE_MAX: usize = 128;
/// Messages of a snapshot that may wait for its connection: what is read ahead is bounded by who sends it.
pub const SNAPSHOT_QUEUE_MAX: usize = 1;
/// How long a connection to a peer may take to be made.
pub const PEER_CONNECT_MS_MAX: u64 = 1_000;
/// A peer that answers no HTTP/2 ping for this long twice over is dialled anew: its address may have changed.
pub const PEER_KEEP_ALIVE_MS: u64 = 2_000;
/// Connections that may be in their TLS handshake at once.
pub const HANDSHAKES_MAX: usize = 256;
/// How often members greet each other: reachability is known to this precision.
pub const GREETING_MS: u64 = 500;
/// How long a greeting may take.
pub const GREETING_TIMEOUT_MS: u64 = 1_000;
/// A member that was not heard of for this long counts as unreachable.
pub const REACHABLE_MS: u64 = 2_500;
/// How often members without the management group ask for the directory.
pub const DIRECTORY_POLL_MS: u64 = 500;
/// The first pause before a request is tried again on another member; doubled up to [`RETRY_PAUSE_MS_MAX`].
pub const RETRY_PAUSE_MS: u64 = 10;
/// The longest such pause.
pub const RETRY_PAUSE_MS_MAX: u64 = 100;
/// The longest time that one try of a forwarded request may take, so that a dead peer does not eat the whole deadline.
pub const TRY_MS_MAX: u64 = 1_000;
/// How often the leader of a partition looks for sessions and releases that have run out.
pub const EXPIRY_TICK_MS: u64 = 50;
/// How many sessions one command may expire.
pub const EXPIRE_BATCH_MAX: usize = 1_000;
/// How often watchers are told whether what they see is up to date.
pub const STALENESS_TICK_MS: u64 = 250;
/// A view counts as stale when its replica has not heard of a leader for this long.
pub const STALE_MS: u64 = 1_500;
/// How long the process may take to hand over when it is asked to stop.
pub const DRAIN_MS_MAX: u64 = 20_000;
/// Requests of applications that are served at once; streams do not count once they have begun.
pub const REQUESTS_MAX: usize = 1_024;
/// Operations that one stream has under way; past it the stream is read no further. What a partition takes in a few
/// flushes of its log.
pub const STREAM_WINDOW: usize = 1_024;
/// Bytes of the values of one stream's operations that are under way.
pub const STREAM_WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// Operations of one stream that travel to their partition together: they share a message, a wait and an answer.
pub const GROUP_OPERATIONS_MAX: usize = 256;
/// Bytes of their values, passed by none of them unless it is alone.
pub const GROUP_BYTES_MAX: usize = 256 * 1024;
/// Events of one watch that are taken at once.
pub const EVENTS_AT_ONCE: usize = 16;
/// Operations of all streams that are under way.
pub const OPERATIONS_MAX: usize = 8_192;
/// Bytes of the values of all of these.
pub const OPERATIONS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of one batch of operations, or of results: many small ones, or some large ones.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes after which a batch of results is sent, so that it stays below that.
pub const RESULTS_BYTES: usize = 1024 * 1024;
/// Sessions that one keep-alive names.
pub const KEEP_ALIVES_MAX: usize = 256;
/// Releases that the answer to a keep-alive names of each session: others are named when these are over.
pub const RELEASES_MAX: usize = 64;
/// How long answers of a stream wait for more of them, where more are under way.
pub const RESULTS_HELD_MAX: std::time::Duration = std::time::Duration::from_millis(1);
/// Places of maps and locks that a stream remembers: applications use few of them often.
pub const STREAM_HOMES_MAX: usize = 16;
/// Connections of applications: each carries many requests or one stream.
pub const CONNECTIONS_MAX: usize = 12_000;
/// How long connections may take to end when the process stops.
pub const CONNECTION_END_MS_MAX: u64 = 1_000;
/// How long a start waits for the lock of its data directory: what a killed process needs to be gone.
pub const LOCK_WAIT_MS: u64 = 2_000;
/// A keeper's tick that comes this late was not there to be told of keep-alives: all deadlines begin anew.
pub const LATE_TICK_MS: u64 = 500;
/// Client ids that a sidecar mints request ids under: results are kept per client up to a count, and each of these then
/// has fewer requests under way than that count.
pub const CLIENT_IDS: usize = 128;
/// So far may the wall clock be set back, in milliseconds, while request ids go on from the newest; far less than ids may be
/// ahead of a partition's time.
pub const CLOCK_BACK_MS_MAX: u64 = 10_000;
/// Request ids that are minted under one client id before the next one's turn.
pub const CLIENT_RUN: usize = 32;

const _: () = assert!(
    ((REQUESTS_MAX + OPERATIONS_MAX) / (CLIENT_IDS * CLIENT_RUN) + 1) * CLIENT_RUN
        < coterie_core::limits::RESULTS_PER_CLIENT_MAX
);
const _: () = assert!(RESULTS_BYTES + 2 * coterie_core::limits::VALUE_BYTES_MAX < BATCH_BYTES_MAX);
