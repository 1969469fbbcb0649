//! The runtime that openraft spawns its tasks on and draws its election time-outs from.

use std::future::Future;

use coterie_env::Env;
#[cfg(not(feature = "sim"))]
use openraft_rt_tokio::TokioRuntime;

#[cfg(feature = "sim")]
mod gated;

/// openraft's runtime: tokio.
#[cfg(not(feature = "sim"))]
pub(crate) type Runtime = TokioRuntime;

/// openraft's runtime in the simulator: tokio, whose tasks stand still with their process, with chance drawn from a seed.
/// Every call that makes openraft spawn a task or draw a number must run inside [`seeded`].
#[cfg(feature = "sim")]
pub(crate) type Runtime = openraft_rt::deterministic_rng::DeterministicRng<gated::Gated>;

/// Runs a call into openraft so that chance in it, and in the tasks that it spawns, comes from [`Env::random`].
/// Outside the simulator openraft uses the thread's generator, and this does nothing.
#[cfg(not(feature = "sim"))]
pub(crate) async fn seeded<F: Future>(_env: &Env, call: F) -> F::Output {
    call.await
}

/// Runs a call into openraft so that chance in it, and in the tasks that it spawns, comes from [`Env::random`].
#[cfg(feature = "sim")]
pub(crate) async fn seeded<F: Future>(env: &Env, call: F) -> F::Output {
    Runtime::scope(env.random.next_u64(), call).await
}
