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
                format!(
                    "output_format {:?} is not known: use png, jpeg or webp",
                    crate::refusal::short(name, 40)
                ),
            )),
        }
    }
}

/// JPEG's usual compromise.
pub(crate) const QUALITY: u8 = 90;

/// The picture as a file that carries `parameters`, if there are any: a PNG in its text chunk, the
/// others in EXIF. `quality` is JPEG's, WebP is written without loss.
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
            PngEncoder::new_with_quality(&mut out, CompressionType::Fast, FilterType::Adaptive).write_image(
                &picture.rgb,
                width,
                height,
                ExtendedColorType::Rgb8,
            )
        }
        (Format::Jpeg, _) => {
            let mut encoder = JpegEncoder::new_with_quality(&mut out, quality);
            // Where the format has no room for it, the picture goes without.
            let _ = parameters.map(|p| encoder.set_exif_metadata(exif(&p.to_text())));
            encoder.write_image(&picture.rgb, width, height, ExtendedColorType::Rgb8)
        }
        (Format::Webp, _) => {
            let mut encoder = WebPEncoder::new_lossless(&mut out);
            let _ = parameters.map(|p| encoder.set_exif_metadata(exif(&p.to_text())));
            encoder.write_image(&picture.rgb, width, height, ExtendedColorType::Rgb8)
        }
    }
    .map_err(failed)?;
    Ok(out)
}

/// An EXIF block with one field, `UserComment`, as the web UI writes it: big-endian, text in UTF-16.
fn exif(text: &str) -> Vec<u8> {
    let comment: Vec<u8> = b"UNICODE\0"
        .iter()
        .copied()
        .chain(text.encode_utf16().flat_map(u16::to_be_bytes))
        .collect();
    let entry = |tag: u16, kind: u16, count: u32, value: u32| {
        let mut bytes = vec![0, 1];
        bytes.extend(tag.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(count.to_be_bytes());
        bytes.extend(value.to_be_bytes());
        // No further directory.
        bytes.extend([0; 4]);
        bytes
    };
    let mut out = b"MM\0*\0\0\0\x08".to_vec();
    // The first directory points to the EXIF one, which follows it, and that to the comment.
    out.extend(entry(0x8769, 4, 1, 26));
    out.extend(entry(0x9286, 7, comment.len() as u32, 44));
    out.extend(comment);
    out
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_carries_its_recipe() {
        let picture = Picture {
            width: 8,
            height: 8,
            rgb: vec![100; 192],
        };
        let parameters = Parameters {
            prompt: "a cat \u{732b}".into(),
            ..Parameters::default()
        };
        let utf16: Vec<u8> = "a cat \u{732b}".encode_utf16().flat_map(u16::to_be_bytes).collect();
        for format in [Format::Jpeg, Format::Webp] {
            let bytes = encode(&picture, format, QUALITY, Some(&parameters)).unwrap();
            assert!(bytes.windows(utf16.len()).any(|w| w == utf16), "{format:?}");
            let decoded = Picture::decode(&bytes, "file").unwrap();
            assert_eq!((decoded.width, decoded.height), (8, 8));
        }
        let png = encode(&picture, Format::Png, QUALITY, Some(&parameters)).unwrap();
        assert_eq!(
            png_metadata::read_parameters(&png).unwrap().unwrap().prompt,
            parameters.prompt
        );
    }

    #[test]
    fn the_exif_directories_point_to_each_other() {
        let block = exif("x");
        let at = |i: usize| u32::from_be_bytes(block[i..i + 4].try_into().unwrap()) as usize;
        assert_eq!(at(18), 26);
        assert_eq!(at(36), 44);
        assert_eq!(block[44..], *b"UNICODE\0\0x");
        assert_eq!(at(32), block.len() - 44);
    }
}
