//! Pictures in and out of messages: bounded decoding, encoding, base64.

use crate::app::App;
use crate::refusal::Refusal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};
use prima_pipeline::{Parameters, Picture, png_metadata};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::timeout;

/// A format for pictures on their way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    #[default]
    Png,
    Jpeg,
    Webp,
}

impl Format {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
        }
    }

    pub fn mime(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }
}

impl std::str::FromStr for Format {
    type Err = Refusal;

    fn from_str(name: &str) -> Result<Self, Refusal> {
        match name.to_ascii_lowercase().as_str() {
            "png" => Ok(Self::Png),
            "jpeg" | "jpg" => Ok(Self::Jpeg),
            "webp" => Ok(Self::Webp),
            _ => Err(Refusal::field(
                "output_format",
                format!("output_format {:?} is not known: use png, jpeg or webp", crate::refusal::short(name, 40)),
            )),
        }
    }
}

/// JPEG's usual compromise.
pub(crate) const QUALITY: u8 = 90;

/// The picture as a file; a PNG carries `parameters` if there are any. `quality` is JPEG's, WebP is
/// written without loss.
pub(crate) fn encode(
    picture: &Picture,
    format: Format,
    quality: u8,
    parameters: Option<&Parameters>,
) -> Result<Vec<u8>, Refusal> {
    let failed = |e: image::ImageError| {
        tracing::error!("a picture could not be encoded: {e}");
        Refusal::defect()
    };
    let (width, height) = (picture.width as u32, picture.height as u32);
    let mut out = Vec::new();
    match (format, parameters) {
        (Format::Png, Some(parameters)) => return Ok(png_metadata::encode_png(picture, parameters)?),
        (Format::Png, None) => {
            use image::codecs::png::{CompressionType, FilterType, PngEncoder};
            PngEncoder::new_with_quality(&mut out, CompressionType::Fast, FilterType::Adaptive)
                .write_image(&picture.rgb, width, height, ExtendedColorType::Rgb8)
        }
        (Format::Jpeg, _) => {
            JpegEncoder::new_with_quality(&mut out, quality).write_image(&picture.rgb, width, height, ExtendedColorType::Rgb8)
        }
        (Format::Webp, _) => {
            WebPEncoder::new_lossless(&mut out).write_image(&picture.rgb, width, height, ExtendedColorType::Rgb8)
        }
    }
    .map_err(failed)?;
    Ok(out)
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

/// Unpacks a client's picture, within the limits on bytes, pixels and time; at `size` if given.
pub(crate) async fn decode(app: &App, bytes: impl AsRef<[u8]> + Send + 'static, size: Option<(usize, usize)>) -> Result<Picture, Refusal> {
    let limits = app.limits();
    let given = bytes.as_ref().len();
    if given > limits.image_bytes {
        return Err(Refusal::field(
            "image",
            format!("the image has {given} bytes, more than the {} allowed", limits.image_bytes),
        ));
    }
    let most = limits.image_pixels;
    let decoders = app.decoders.clone();
    let work = async move {
        let permit = decoders.acquire_owned().await;
        off_the_loop(move || {
            let _permit = permit;
            let picture = Picture::decode_at_most(bytes.as_ref(), "the image", most)?;
            Ok(match size {
                Some((width, height)) => picture.resized(width, height),
                None => picture,
            })
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
            None => return Err(Refusal::field(param, format!("{param} is a data URL that is not in base64"))),
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
