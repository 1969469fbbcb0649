//! Processes that stand still while time goes on (`SIGSTOP`, a frozen container), for the simulator.
//!
//! All simulated processes share a thread, so one of them is stopped by not polling its tasks: each of them is wrapped in
//! [`gated`], which asks the [`Gate`] of its process. Tasks that a library starts by itself inherit the gate of the task
//! that starts them, where the library can be given an executor.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

tokio::task_local! {
    static PRESENT: Gate;
}

/// Whether a process runs. Clones are the same process's.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_closed: bool,
    /// Who wanted to go on meanwhile.
    waiting: Vec<Waker>,
}

impl Gate {
    /// From now on the process stands still.
    pub fn close(&self) {
        self.state().is_closed = true;
    }

    /// It goes on.
    pub fn open(&self) {
        let waiting = {
            let mut state = self.state();
            state.is_closed = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether it stands still.
    pub fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Ready while the process runs; else the task is woken when it goes on.
    pub fn poll_open(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if !state.is_closed {
            return Poll::Ready(());
        }
        state.waiting.push(context.waker().clone());
        Poll::Pending
    }

    /// A task of this process.
    pub fn task<F: Future>(&self, task: F) -> impl Future<Output = F::Output> + use<F> {
        PRESENT.scope(self.clone(), Gated { gate: self.clone(), task: Box::pin(task) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while the lock is held")
    }
}

/// A task of the process that the present task is of; any task where there is none.
pub fn gated<F: Future>(task: F) -> impl Future<Output = F::Output> + use<F> {
    // A gate of its own is never closed.
    PRESENT.try_with(Gate::clone).unwrap_or_default().task(task)
}

struct Gated<F> {
    gate: Gate,
    task: Pin<Box<F>>,
}

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        std::task::ready!(self.gate.poll_open(context));
        self.task.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tasks_of_a_process_that_stands_still_go_on_with_it_and_so_do_those_that_they_start() {
        let (gate, counted) = (Gate::default(), Arc::new(AtomicU64::new(0)));
        let count = {
            let counted = counted.clone();
            async move {
                let inner = tokio::spawn(gated(async move {
                    loop {
                        tokio::time::sleep(Duration::from_millis(10)).await; // plays a task that has something to do
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                }));
                inner.await
            }
        };
        let task = tokio::spawn(gate.task(count));
        let pass = || tokio::time::sleep(Duration::from_millis(105)); // plays the time
        pass().await;
        assert_eq!(counted.load(Ordering::Relaxed), 10);
        gate.close();
        pass().await;
        assert_eq!(counted.load(Ordering::Relaxed), 10);
        gate.open();
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert_eq!(counted.load(Ordering::Relaxed), 11, "one timer has run out, however long ago");
        task.abort();
    }
}
