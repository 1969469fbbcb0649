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
    urgent: VecDeque<(T, usize)>,
    bulk: VecDeque<(T, usize)>,
    bytes: usize,
    /// Which reader may take, and how to wake it.
    reader: Reader,
    waker: Option<Waker>,
    /// How to wake the one who waits for room.
    writer: Option<Waker>,
    closed: bool,
}

/// Which items go first. Within a class the order stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Small, and worthless when late: votes, heartbeats, keep-alives.
    Urgent,
    /// All else.
    Bulk,
}

/// The right to take from a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reader(u64);

/// The queue has no room, or takes nothing any more; here is what was to be queued.
#[derive(Debug)]
pub(super) struct Full<T>(pub(super) T);

impl<T> Queue<T> {
    pub(super) fn new(items_max: usize, bytes_max: usize) -> Self {
        let inner = Inner {
            urgent: VecDeque::new(),
            bulk: VecDeque::new(),
            bytes: 0,
            reader: Reader(0),
            waker: None,
            writer: None,
            closed: false,
        };
        Self { inner: Mutex::new(inner), items_max, bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().expect("no panic while the lock is held")
    }

    /// Queues one item of about this many bytes. Alone, an item may have any size.
    pub(super) fn push(&self, class: Class, item: T, bytes: usize) -> Result<(), Full<T>> {
        let inner = self.lock();
        let fits =
            inner.len() < self.items_max && (inner.len() == 0 || inner.bytes.saturating_add(bytes) <= self.bytes_max);
        if inner.closed || !fits {
            return Err(Full(item));
        }
        add(inner, class, item, bytes);
        Ok(())
    }

    /// Queues one item whatever the bounds say: what comes of something that was bounded before it began.
    pub(super) fn push_always(&self, class: Class, item: T, bytes: usize) -> Result<(), Full<T>> {
        let inner = self.lock();
        if inner.closed {
            return Err(Full(item));
        }
        add(inner, class, item, bytes);
        Ok(())
    }

    /// Whether the bounds are not reached.
    pub(super) fn has_room(&self) -> bool {
        self.lock().has_room(self.items_max, self.bytes_max)
    }

    /// Waits until the bounds are not reached, or the queue is closed. One may wait at a time.
    pub(super) async fn room(&self) {
        std::future::poll_fn(|context| {
            let mut inner = self.lock();
            if inner.closed || inner.has_room(self.items_max, self.bytes_max) {
                return Poll::Ready(());
            }
            inner.writer = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
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
        if inner.len() == 0 {
            if inner.closed {
                return Poll::Ready(None);
            }
            inner.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut taken = Vec::with_capacity(inner.len().min(items_max));
        let mut taken_bytes = 0;
        while taken.len() < items_max && taken_bytes < bytes_max {
            let next = inner.urgent.pop_front().or_else(|| inner.bulk.pop_front());
            let Some((item, bytes)) = next else { break };
            inner.bytes -= bytes;
            taken_bytes += bytes;
            taken.push(item);
        }
        wake_writer(inner);
        Poll::Ready(Some(taken))
    }

    /// Waits until there is something, or the queue is closed.
    pub(super) async fn ready(&self) {
        std::future::poll_fn(|context| {
            let mut inner = self.lock();
            if inner.closed || inner.len() > 0 {
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
        let urgent = std::mem::take(&mut inner.urgent);
        let bulk = std::mem::take(&mut inner.bulk);
        wake_writer(inner);
        urgent.into_iter().chain(bulk).map(|(item, _)| item).collect()
    }

    /// Takes nothing any more; what is queued can still be taken.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        let writer = inner.writer.take();
        wake(inner);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

impl<T> Inner<T> {
    fn len(&self) -> usize {
        self.urgent.len() + self.bulk.len()
    }

    fn has_room(&self, items_max: usize, bytes_max: usize) -> bool {
        self.len() < items_max && self.bytes < bytes_max
    }
}

fn add<T>(mut inner: MutexGuard<'_, Inner<T>>, class: Class, item: T, bytes: usize) {
    match class {
        Class::Urgent => inner.urgent.push_back((item, bytes)),
        Class::Bulk => inner.bulk.push_back((item, bytes)),
    }
    inner.bytes += bytes;
    wake(inner);
}

fn wake_writer<T>(mut inner: MutexGuard<'_, Inner<T>>) {
    let writer = inner.writer.take();
    drop(inner);
    if let Some(writer) = writer {
        writer.wake();
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
        queue.push(Class::Bulk, 1, 1).unwrap();
        assert_eq!(poll_fn(|context| queue.poll_take(earlier, context, 3, 100)).await, None);
        assert_eq!(take(&queue).await, Some(vec![1]));
    }

    #[tokio::test]
    async fn a_batch_is_what_is_there_within_the_bounds() {
        let queue = Queue::new(10, 1_000);
        for item in 0..5 {
            queue.push(Class::Bulk, item, 1).unwrap();
        }
        assert_eq!(take(&queue).await, Some(vec![0, 1, 2]));
        assert_eq!(take(&queue).await, Some(vec![3, 4]));
        queue.push(Class::Bulk, 5, 99).unwrap();
        queue.push(Class::Bulk, 6, 99).unwrap();
        queue.push(Class::Bulk, 7, 1).unwrap();
        assert_eq!(take(&queue).await, Some(vec![5, 6]), "the bound may be passed by one item");
        queue.close();
        assert_eq!(take(&queue).await, Some(vec![7]));
        assert_eq!(take(&queue).await, None);
        assert!(queue.push(Class::Bulk, 8, 1).is_err());
    }

    #[tokio::test]
    async fn what_does_not_fit_is_given_back_and_a_large_item_fits_alone() {
        let queue = Queue::new(2, 10);
        queue.push(Class::Bulk, 1, 50).unwrap();
        assert_eq!(queue.push(Class::Bulk, 2, 1).unwrap_err().0, 2);
        assert_eq!(queue.drain(), vec![1]);
        queue.push(Class::Bulk, 3, 1).unwrap();
        queue.push(Class::Bulk, 4, 1).unwrap();
        assert_eq!(queue.push(Class::Bulk, 5, 1).unwrap_err().0, 5);
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
        queue.push(Class::Bulk, 1, 1).unwrap();
        assert_eq!(reader.await.unwrap(), Some(vec![1]));
    }

    #[tokio::test]
    async fn what_is_urgent_goes_first_and_each_class_keeps_its_order() {
        let queue = Queue::new(10, 1_000);
        for (class, item) in [(Class::Bulk, 1), (Class::Urgent, 2), (Class::Bulk, 3), (Class::Urgent, 4)] {
            queue.push(class, item, 1).unwrap();
        }
        assert_eq!(take(&queue).await, Some(vec![2, 4, 1]));
        assert_eq!(take(&queue).await, Some(vec![3]));
    }

    #[tokio::test]
    async fn whoever_waits_for_room_goes_on_once_something_was_taken_and_what_must_be_said_needs_none() {
        let queue = Queue::new(1, 10);
        queue.push(Class::Bulk, 1, 1).unwrap();
        assert!(!queue.has_room());
        queue.push_always(Class::Urgent, 2, 1).unwrap();
        let (_, taken) = tokio::join!(queue.room(), async {
            tokio::task::yield_now().await;
            take(&queue).await
        });
        assert_eq!(taken, Some(vec![2, 1]));
        queue.close();
        queue.room().await;
    }
}
