//! Pictures in and out of messages: bounded decoding, formats, base64.

use crate::app::App;
use crate::refusal::Refusal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prima_picture::{Format, Picture};
use std::time::Duration;
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

/// Longest wait for a picture to be unpacked; the pixel limit keeps it far below.
const DECODE_TIME: Duration = Duration::from_secs(10);

/// A size to paint that is larger than this is about to be refused.
const MOST_SIDE: usize = 1 << 13;

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
    let picture = decode(app, bytes).await?;
    let fit = app.pipeline()?.fit(&picture);
    let (width, height) = (width.unwrap_or(fit.0), height.unwrap_or(fit.1));
    if !(1..=MOST_SIDE).contains(&width) || !(1..=MOST_SIDE).contains(&height) {
        return Ok(picture);
    }
    off_the_loop(move || Ok(picture.resized(width, height))).await
}

/// Unpacks a client's picture, within the limits on bytes, pixels and time.
pub(crate) async fn decode(app: &App, bytes: impl AsRef<[u8]> + Send + 'static) -> Result<Picture, Refusal> {
    let limits = app.limits();
    let given = bytes.as_ref().len();
    if given > limits.image_bytes {
        return Err(Refusal::field(
            "image",
            format!(
                "the image has {given} bytes, more than the {} allowed",
                limits.image_bytes
            ),
        ));
    }
    let most = limits.image_pixels;
    let decoders = app.decoders.clone();
    let work = async move {
        let permit = decoders.acquire_owned().await;
        off_the_loop(move || {
            let _permit = permit;
            Ok(Picture::decode_at_most(bytes.as_ref(), "the image", most)?)
        })
        .await
    };
    match timeout(DECODE_TIME, work).await {
        Ok(result) => result,
        Err(_) => Err(Refusal::field(
            "image",
            format!("the image took longer than {} s to unpack", DECODE_TIME.as_secs()),
        )),
    }
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
