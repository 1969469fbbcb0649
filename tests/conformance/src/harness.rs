//! The cluster that tests share, and how they wait.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use coterie_cli::local::{LocalCluster, Plan, Seat, standard_groups};
use coterie_core::config::builder::Builder;
use tokio::sync::OnceCell;

use crate::wire::Wire;

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// No test takes longer, whatever it waits for.
const TEST_MAX: Duration = Duration::from_secs(180);

static SHARED: OnceCell<LocalCluster> = OnceCell::const_new();

/// The three-member cluster that all tests of this program share: started once, ended with the program.
///
/// # Panics
/// When it does not start; the message says why.
pub async fn shared() -> &'static LocalCluster {
    let start = || async { LocalCluster::start(3).await.unwrap_or_else(|error| panic!("start a cluster: {error}")) };
    SHARED.get_or_init(start).await
}

/// A session time-out for clusters in which members are killed: short, but long enough for a busy machine.
pub const SESSION_TIMEOUT_MS: u64 = 2_000;

/// A cluster of one test: three members with standard groups and [`SESSION_TIMEOUT_MS`], ready.
///
/// # Panics
/// When it does not start; the message says why.
pub async fn cluster() -> LocalCluster {
    let cluster = prepared(|_, builder| standard_groups(&names(), builder).session_timeout_ms(SESSION_TIMEOUT_MS));
    start(&cluster, [0, 1, 2]).await;
    cluster
}

/// The names of three members.
pub fn names() -> Vec<String> {
    (1..=3).map(|number| format!("member-{number}")).collect()
}

/// Three places, configured by `configure`, of which none is started.
///
/// # Panics
/// When the files cannot be written.
pub fn prepared(configure: impl Fn(&Seat, Builder) -> Builder + Send + Sync + 'static) -> LocalCluster {
    LocalCluster::prepare(&Plan::new(3).configure(configure))
        .unwrap_or_else(|error| panic!("prepare a cluster: {error}"))
}

/// Starts these places and waits until they are ready.
///
/// # Panics
/// When they are not; the message says why.
pub async fn start(cluster: &LocalCluster, places: impl IntoIterator<Item = usize> + Clone) {
    for place in places.clone() {
        cluster.spawn(place).unwrap_or_else(|error| panic!("{error}"));
    }
    for place in places {
        cluster.wait_member(place, READY).await.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// How long a member may take to become ready.
const READY: Duration = Duration::from_secs(60);

/// A client of each of the shared cluster's members.
pub async fn clients<W: Wire>() -> [W; 3] {
    let cluster = shared().await;
    [0, 1, 2].map(|place| W::connect(&cluster.endpoint(place)))
}

/// A name that no other test uses.
pub fn name(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Runs one test on a runtime of its own.
///
/// # Panics
/// When it takes longer than any test may.
pub fn run(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().expect("a runtime needs nothing that is missing");
    let ended = runtime.block_on(async { tokio::time::timeout(TEST_MAX, test).await });
    runtime.shutdown_background();
    assert!(ended.is_ok(), "the test took longer than {TEST_MAX:?}");
}

/// Asks again and again until the answer is there.
///
/// # Panics
/// When it is not there in time; the message says what was waited for and how things were last.
pub async fn eventually<T, F, A>(what: &str, mut ask: A) -> T
where
    A: FnMut() -> F,
    F: Future<Output = Result<T, String>>,
{
    let begun = Instant::now();
    loop {
        let last = match ask().await {
            Ok(answer) => return answer,
            Err(last) => last,
        };
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} until {what}; last: {last}");
        tokio::time::sleep(Duration::from_millis(20)).await; // waits for a condition
    }
}
