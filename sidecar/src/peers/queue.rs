//! What waits to be sent on a link: taken a batch at a time, as much as is there and no waiting for more.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// A bounded queue with one reader at a time: the one that came last. An earlier one gets nothing any more.
#[derive(Debug)]
pub(super) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    items_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Inner<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    /// Which reader may take, and how to wake it.
    reader: Reader,
    waker: Option<Waker>,
    closed: bool,
}

/// The right to take from a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reader(u64);

/// The queue has no room, or takes nothing any more; here is what was to be queued.
#[derive(Debug)]
pub(super) struct Full<T>(pub(super) T);

impl<T> Queue<T> {
    pub(super) fn new(items_max: usize, bytes_max: usize) -> Self {
        let inner = Inner { items: VecDeque::new(), bytes: 0, reader: Reader(0), waker: None, closed: false };
        Self { inner: Mutex::new(inner), items_max, bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().expect("no panic while the lock is held")
    }

    /// Queues one item of about this many bytes. Alone, an item may have any size.
    pub(super) fn push(&self, item: T, bytes: usize) -> Result<(), Full<T>> {
        let mut inner = self.lock();
        let is_full = inner.items.len() >= self.items_max
            || (!inner.items.is_empty() && inner.bytes.saturating_add(bytes) > self.bytes_max);
        if inner.closed || is_full {
            return Err(Full(item));
        }
        inner.items.push_back((item, bytes));
        inner.bytes += bytes;
        wake(inner);
        Ok(())
    }

    /// Makes another reader the one that may take.
    pub(super) fn reader(&self) -> Reader {
        let mut inner = self.lock();
        inner.reader.0 += 1;
        let reader = inner.reader;
        wake(inner);
        reader
    }

    /// Takes what is there, until it has `items_max` items or passes `bytes_max`; at least one. `None` once the queue is
    /// closed and empty, and for an earlier reader.
    pub(super) fn poll_take(
        &self,
        reader: Reader,
        context: &mut Context<'_>,
        items_max: usize,
        bytes_max: usize,
    ) -> Poll<Option<Vec<T>>> {
        let mut inner = self.lock();
        if inner.reader != reader {
            return Poll::Ready(None);
        }
        if inner.items.is_empty() {
            if inner.closed {
                return Poll::Ready(None);
            }
            inner.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut taken = Vec::with_capacity(inner.items.len().min(items_max));
        let mut taken_bytes = 0;
        while taken.len() < items_max && taken_bytes < bytes_max {
            let Some((item, bytes)) = inner.items.pop_front() else { break };
            inner.bytes -= bytes;
            taken_bytes += bytes;
            taken.push(item);
        }
        Poll::Ready(Some(taken))
    }

    /// Waits until there is something, or the queue is closed.
    pub(super) async fn ready(&self) {
        std::future::poll_fn(|context| {
            let mut inner = self.lock();
            if inner.closed || !inner.items.is_empty() {
                return Poll::Ready(());
            }
            inner.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Takes everything.
    pub(super) fn drain(&self) -> Vec<T> {
        let mut inner = self.lock();
        inner.bytes = 0;
        inner.items.drain(..).map(|(item, _)| item).collect()
    }

    /// Takes nothing any more; what is queued can still be taken.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        wake(inner);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

/// Outside of the lock: whoever is woken may be polled at once.
fn wake<T>(mut inner: MutexGuard<'_, Inner<T>>) {
    let waker = inner.waker.take();
    drop(inner);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn take(queue: &Queue<u32>) -> Option<Vec<u32>> {
        let reader = queue.reader();
        poll_fn(|context| queue.poll_take(reader, context, 3, 100)).await
    }

    #[tokio::test]
    async fn an_earlier_reader_takes_nothing_from_the_one_that_came_after_it() {
        let queue = Queue::new(10, 1_000);
        let earlier = queue.reader();
        queue.reader();
        queue.push(1, 1).unwrap();
        assert_eq!(poll_fn(|context| queue.poll_take(earlier, context, 3, 100)).await, None);
        assert_eq!(take(&queue).await, Some(vec![1]));
    }

    #[tokio::test]
    async fn a_batch_is_what_is_there_within_the_bounds() {
        let queue = Queue::new(10, 1_000);
        for item in 0..5 {
            queue.push(item, 1).unwrap();
        }
        assert_eq!(take(&queue).await, Some(vec![0, 1, 2]));
        assert_eq!(take(&queue).await, Some(vec![3, 4]));
        queue.push(5, 99).unwrap();
        queue.push(6, 99).unwrap();
        queue.push(7, 1).unwrap();
        assert_eq!(take(&queue).await, Some(vec![5, 6]), "the bound may be passed by one item");
        queue.close();
        assert_eq!(take(&queue).await, Some(vec![7]));
        assert_eq!(take(&queue).await, None);
        assert!(queue.push(8, 1).is_err());
    }

    #[tokio::test]
    async fn what_does_not_fit_is_given_back_and_a_large_item_fits_alone() {
        let queue = Queue::new(2, 10);
        queue.push(1, 50).unwrap();
        assert_eq!(queue.push(2, 1).unwrap_err().0, 2);
        assert_eq!(queue.drain(), vec![1]);
        queue.push(3, 1).unwrap();
        queue.push(4, 1).unwrap();
        assert_eq!(queue.push(5, 1).unwrap_err().0, 5);
    }

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let queue = std::sync::Arc::new(Queue::new(2, 10));
        let reader = tokio::spawn({
            let queue = queue.clone();
            async move {
                queue.ready().await;
                take(&queue).await
            }
        });
        tokio::task::yield_now().await;
        queue.push(1, 1).unwrap();
        assert_eq!(reader.await.unwrap(), Some(vec![1]));
    }
}
