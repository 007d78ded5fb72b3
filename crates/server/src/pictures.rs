//! Pictures in and out of messages: bounded work on them, formats, base64.

use crate::app::App;
use crate::refusal::Refusal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prima_picture::{Format, Header, MAX_TEXT_BYTES, Picture, resize_bytes};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The format that a client names.
pub(crate) fn format_named(name: &str) -> Result<Format, Refusal> {
    Format::named(name).ok_or_else(|| {
        let name = crate::refusal::short(name, 40);
        let message = format!("output_format {name:?} is not known: use png, jpeg or webp");
        Refusal::field("output_format", message)
    })
}

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

/// A client's picture of which the header has been looked at, and found within the limits.
pub(crate) struct Packed<B> {
    bytes: B,
    pub header: Header,
}

impl<B: AsRef<[u8]> + Send + 'static> Packed<B> {
    /// Reads the header; the pixels stay packed.
    pub async fn open(app: &App, bytes: B) -> Result<Self, Refusal> {
        let limits = app.limits();
        let given = bytes.as_ref().len();
        if given > limits.image_bytes {
            let most = limits.image_bytes;
            let message = format!("the image has {given} bytes, more than the {most} allowed");
            return Err(Refusal::field("image", message));
        }
        let most = limits.image_pixels;
        off_the_loop(move || {
            let header = Header::read(bytes.as_ref(), "the image", most)?;
            Ok(Self { bytes, header })
        })
        .await
    }

    /// Unpacks it; needs [`Header::decode_bytes`] of memory.
    pub fn decode(&self) -> Result<Picture, Refusal> {
        Ok(Picture::decode_at_most(
            self.bytes.as_ref(),
            "the image",
            self.header.width * self.header.height,
        )?)
    }

    /// Memory for unpacking and then resizing it to what `size` makes of its size, whichever way EXIF turns it.
    pub fn bytes_to_resize(&self, size: impl Fn((usize, usize)) -> (usize, usize)) -> usize {
        let Header {
            width,
            height,
            decode_bytes,
        } = self.header;
        let either = [(width, height), (height, width)].map(|from| resize_bytes(from, size(from)));
        either.into_iter().fold(decode_bytes, |most, bytes| {
            most.max(bytes.saturating_add(3 * width * height))
        })
    }
}

/// Memory for reading what a file of these bytes says of its making.
pub(crate) fn metadata_bytes(file: &[u8]) -> usize {
    3 * file.len() + 4 * MAX_TEXT_BYTES
}

/// A picture to start from, at the size at which it will be painted over: what waits in the queue
/// is no larger than that.
pub(crate) async fn initial(
    app: &App,
    bytes: impl AsRef<[u8]> + Send + 'static,
    width: Option<usize>,
    height: Option<usize>,
) -> Result<Picture, Refusal> {
    // The model has to be there, to say what fits.
    app.pipeline()?;
    let packed = Packed::open(app, bytes).await?;
    let most = app.limits().max_side_px;
    let engine = app.engine.clone();
    let size = move |(from_width, from_height): (usize, usize)| {
        let fit = engine
            .pipeline()
            .map(|pipeline| pipeline.fit_size(from_width, from_height));
        let fit = fit.unwrap_or((from_width, from_height));
        // A size that was asked for and is not possible is about to be refused.
        let possible = |side: Option<usize>| side.is_none_or(|side| (1..=most).contains(&side));
        if possible(width) && possible(height) {
            (width.unwrap_or(fit.0), height.unwrap_or(fit.1))
        } else {
            (8, 8)
        }
    };
    app.workshop
        .run(packed.bytes_to_resize(&size), move || {
            let picture = packed.decode()?;
            let (width, height) = size((picture.width, picture.height));
            Ok(picture.resized(width, height))
        })
        .await
}

/// The bytes of a picture written as base64 or as a `data:` URL. Other URLs are never fetched.
pub(crate) fn from_base64(param: &'static str, text: &str) -> Result<Vec<u8>, Refusal> {
    let text = text.trim();
    let start = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    if start.starts_with("http:") || start.starts_with("https:") || start.starts_with("file:") {
        let message = format!("{param} is an address, which prima never fetches: send the picture itself in base64");
        return Err(Refusal::field(param, message));
    }
    let data = match text.strip_prefix("data:") {
        Some(rest) => match rest.split_once(";base64,") {
            Some((_, data)) => data,
            None => {
                return Err(Refusal::field(
                    param,
                    format!("{param} is a data URL that is not in base64"),
                ));
            }
        },
        None => text,
    };
    STANDARD
        .decode(data)
        .map_err(|e| Refusal::field(param, format!("{param} is not base64: {e}")))
}

pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
