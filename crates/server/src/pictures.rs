//! Pictures in and out of messages: bounded work on them, formats, base64.

use crate::app::App;
use crate::refusal::Refusal;
use crate::workshop::off_the_loop;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prima_picture::{Format, Header, Layer, MAX_TEXT_BYTES, Picture, resize_bytes};

/// The format that a client names.
pub(crate) fn format_named(name: &str) -> Result<Format, Refusal> {
    Format::named(name).ok_or_else(|| {
        let name = crate::refusal::short(name, 40);
        let message = format!("output_format {name:?} is not known: use png, jpeg or webp");
        Refusal::field("output_format", message)
    })
}

/// A client's picture of which the header has been looked at, and found within the limits.
pub(crate) struct Packed<B> {
    bytes: B,
    /// What errors call it.
    name: &'static str,
    pub header: Header,
}

impl<B: AsRef<[u8]> + Send + 'static> Packed<B> {
    /// Reads the header; the pixels stay packed.
    pub async fn open(app: &App, bytes: B) -> Result<Self, Refusal> {
        Self::open_named(app, bytes, "image").await
    }

    /// The same of a request's field of this name.
    pub async fn open_named(app: &App, bytes: B, name: &'static str) -> Result<Self, Refusal> {
        let limits = app.limits();
        let given = bytes.as_ref().len();
        if given > limits.image_bytes {
            let most = limits.image_bytes;
            let message = format!("the {name} has {given} bytes, more than the {most} allowed");
            return Err(Refusal::field(name, message));
        }
        let most = limits.image_pixels;
        off_the_loop(move || {
            let header = Header::read(bytes.as_ref(), &format!("the {name}"), most)?;
            Ok(Self { bytes, name, header })
        })
        .await
    }

    /// Unpacks it; needs [`Header::decode_bytes`] of memory.
    pub fn decode(&self) -> Result<Picture, Refusal> {
        Ok(Picture::decode_at_most(
            self.bytes.as_ref(),
            &self.called(),
            self.pixels(),
        )?)
    }

    /// [`decode`](Self::decode) with the transparency that the file has.
    pub fn decode_layer(&self) -> Result<Layer, Refusal> {
        Ok(Layer::decode_at_most(
            self.bytes.as_ref(),
            &self.called(),
            self.pixels(),
        )?)
    }

    /// In errors.
    fn called(&self) -> String {
        format!("the {}", self.name)
    }

    fn pixels(&self) -> usize {
        self.header.width * self.header.height
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

/// The size at which a picture of some size is painted over.
pub(crate) fn painted_size(
    app: &App,
    width: Option<usize>,
    height: Option<usize>,
) -> Result<impl Fn((usize, usize)) -> (usize, usize) + Clone + Send + 'static, Refusal> {
    // The model has to be there, to say what fits.
    let model = app.model()?;
    let most = app.limits().max_side_px;
    Ok(move |(from_width, from_height): (usize, usize)| {
        let fit = model.fit_size(from_width, from_height);
        // A size that was asked for and is not possible is about to be refused.
        let possible = |side: Option<usize>| side.is_none_or(|side| (1..=most).contains(&side));
        if possible(width) && possible(height) {
            (width.unwrap_or(fit.0), height.unwrap_or(fit.1))
        } else {
            (8, 8)
        }
    })
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
