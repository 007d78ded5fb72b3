//! Where work on clients' pictures is done: off the event loop, within one budget of memory.

use crate::refusal::Refusal;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// A thread that may block, for work whose length is bounded by the limits.
pub(crate) async fn off_the_loop<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            tracing::error!("a helper thread failed: {error}");
            Err(Refusal::defect())
        }
    }
}

/// Where clients' pictures are unpacked, resized and packed: one budget of memory for all of it, counted before any of it is
/// taken, and a share of the processors.
pub(crate) struct Workshop {
    most_kib: u32,
    /// One permit a KiB.
    memory: Arc<Semaphore>,
    /// One permit a thread; whoever asks first is next.
    benches: Arc<Semaphore>,
}

/// Longest wait for memory and a thread.
const TURN_TIME: Duration = Duration::from_secs(10);

impl Workshop {
    pub fn new(bytes: usize) -> Self {
        let most_kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
        // The rest is the engine's and the event loop's.
        let benches = std::thread::available_parallelism().map_or(1, |n| n.get() / 2);
        Self {
            most_kib,
            memory: Arc::new(Semaphore::new(most_kib as usize)),
            benches: Arc::new(Semaphore::new(benches.clamp(1, 4))),
        }
    }

    /// Memory for work on pictures of which this much is needed at once.
    pub async fn memory(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        if kib > self.most_kib {
            let message = format!(
                "the picture needs {} MB of memory to be worked on, more than the {} allowed",
                kib >> 10,
                self.most_kib >> 10
            );
            return Err(Refusal::field("image", message));
        }
        in_turn(self.memory.clone().acquire_many_owned(kib)).await
    }

    /// A thread's turn, of those that work on pictures.
    pub async fn bench(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        in_turn(self.benches.clone().acquire_owned()).await
    }

    /// Does `work`, which needs so many bytes of memory, on a thread of its own.
    pub async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let held = (self.memory(bytes).await?, self.bench().await?);
        off_the_loop(move || {
            let _held = held;
            work()
        })
        .await
    }
}

async fn in_turn<T>(turn: impl Future<Output = Result<T, AcquireError>>) -> Result<T, Refusal> {
    match timeout(TURN_TIME, turn).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Refusal::unavailable(
            "too many pictures are being worked on; try again in a moment",
        )),
    }
}
