//! Where work on what clients send is done: off the event loop, within one budget of memory, and behind the engine.

use crate::refusal::Refusal;
use axum::body::Bytes;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

/// A thread that may block, for work that someone who types waits for: short, for a frame of theirs is small.
pub(crate) async fn off_the_loop<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    ended(spawn_blocking(work)).await
}

async fn ended<T>(work: JoinHandle<Result<T, Refusal>>) -> Result<T, Refusal> {
    match work.await {
        Ok(result) => result,
        Err(error) => {
            tracing::error!("a helper thread failed: {error}");
            Err(Refusal::defect())
        }
    }
}

/// Where clients' bodies are understood, and their pictures unpacked, resized and packed: one budget of memory for all of it,
/// counted before any of it is taken, a share of the processors, and threads that the engine and the event loop go before.
pub(crate) struct Workshop {
    most_kib: u32,
    /// One permit a KiB.
    memory: Arc<Semaphore>,
    /// One permit a thread; whoever asks first is next.
    benches: Arc<Semaphore>,
    /// The same for what is small, such as the sketch of someone who draws: it does not queue behind what is large.
    small_benches: Arc<Semaphore>,
    /// Only its threads for work that blocks are used. `None` when it is over.
    back: Option<Runtime>,
}

/// Longest wait for memory and a thread.
const TURN_TIME: Duration = Duration::from_secs(10);
/// Work that needs no more memory than this takes some milliseconds, and is done at once.
const SMALL: usize = 8 << 20;
/// Bodies up to this size are understood where they are.
const SHORT: usize = 64 << 10;
/// `nice` of the threads behind: about a tenth of a processor that the engine wants too.
#[cfg(target_os = "linux")]
const BEHIND: i32 = 10;

impl Workshop {
    pub fn new(bytes: usize) -> std::io::Result<Self> {
        let most_kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
        // The rest is the engine's and the event loop's.
        let benches = std::thread::available_parallelism()
            .map_or(1, |n| n.get() / 2)
            .clamp(1, 4);
        let mut back = Builder::new_multi_thread();
        back.worker_threads(1)
            .max_blocking_threads(32)
            .thread_name("prima-behind");
        #[cfg(target_os = "linux")]
        back.on_thread_start(|| {
            // Where it is refused, the work is done all the same.
            let _ = rustix::process::nice(BEHIND);
        });
        Ok(Self {
            most_kib,
            memory: Arc::new(Semaphore::new(most_kib as usize)),
            benches: Arc::new(Semaphore::new(benches)),
            small_benches: Arc::new(Semaphore::new(benches)),
            back: Some(back.build()?),
        })
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

    /// A thread's turn, of those that work on what is large.
    pub async fn bench(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        in_turn(self.benches.clone().acquire_owned()).await
    }

    /// Does `work`, which needs so many bytes of memory, on a thread of its own.
    pub async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        if bytes <= SMALL {
            let held = (
                self.memory(bytes).await?,
                in_turn(self.small_benches.clone().acquire_owned()).await?,
            );
            return off_the_loop(move || {
                let _held = held;
                work()
            })
            .await;
        }
        let held = (self.memory(bytes).await?, self.bench().await?);
        self.behind(move || {
            let _held = held;
            work()
        })
        .await
    }

    /// What a body of these bytes means: JSON and base64, a few times its size in memory.
    pub async fn understand<T: Send + 'static>(
        &self,
        body: Bytes,
        read: impl FnOnce(&[u8]) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        if body.len() <= SHORT {
            return read(&body);
        }
        self.run(4 * body.len(), move || read(&body)).await
    }

    /// Does `work`, for which no one who types waits, on a thread that the engine goes before.
    pub async fn behind<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        match &self.back {
            Some(back) => ended(back.spawn_blocking(work)).await,
            None => Err(Refusal::unavailable("the server is shutting down")),
        }
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // Its threads end when they have nothing left to do; the one that drops it may not wait for them.
        if let Some(back) = self.back.take() {
            back.shutdown_background();
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(flavor = "multi_thread")]
    async fn half_of_the_processors_work_on_large_pictures() {
        let processors = std::thread::available_parallelism().unwrap().get();
        let workshop = Arc::new(Workshop::new(1 << 30).unwrap());
        let (now, most): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let all = (0..4 * processors).map(|_| {
            let (workshop, now, most) = (workshop.clone(), now.clone(), most.clone());
            async move {
                let work = move || {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(10));
                    now.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                };
                workshop.run(SMALL + 1, work).await.is_ok()
            }
        });
        let done = futures_util::future::join_all(all).await;
        assert!(done.iter().all(|well| *well));
        assert_eq!(most.load(Ordering::SeqCst), (processors / 2).clamp(1, 4));
    }

    /// Field 19 of proc_pid_stat(5).
    #[cfg(target_os = "linux")]
    fn nice() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').nth(16).unwrap().parse().unwrap()
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_is_large_is_done_behind_the_engine_and_what_is_small_is_not() {
        let workshop = Workshop::new(1 << 30).unwrap();
        let own = nice();
        let at = async |bytes| workshop.run(bytes, || Ok(nice())).await.ok();
        assert_eq!(at(SMALL).await, Some(own));
        assert_eq!(at(SMALL + 1).await, Some((own + BEHIND).min(19)));
    }
}
