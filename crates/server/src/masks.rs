//! Pictures to start from, and the masks that say what of them is painted.

use crate::app::App;
use crate::pictures::{Packed, painted_size};
use crate::refusal::Refusal;
use prima_picture::{Gray, Layer, Picture};
use prima_pipeline::{Mask, MaskFill};

/// What a client says of a mask.
#[derive(Clone, Debug)]
pub(crate) struct Masking<B> {
    pub file: Option<B>,
    /// Of what is painted, as the client asks for it.
    pub width: Option<usize>,
    pub height: Option<usize>,
    pub blur_px: f32,
    pub padding_px: Option<usize>,
    pub fill: MaskFill,
    /// Black is painted, and white stays.
    pub is_inverted: bool,
    pub transparency: Transparency,
    /// Whether a mask of another size is stretched to the picture's, and not refused.
    pub is_stretched: bool,
}

/// What an API takes for painted in a file with transparent parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transparency {
    /// What is transparent, in a mask, or without one in the picture itself (OpenAI).
    Painted,
    /// What is opaque in a mask (the web UI).
    Stays,
}

impl<B> Masking<B> {
    /// Of a client that says nothing more than this.
    pub fn new(file: Option<B>, (width, height): (Option<usize>, Option<usize>), transparency: Transparency) -> Self {
        Self {
            file,
            width,
            height,
            blur_px: 0.0,
            padding_px: None,
            fill: MaskFill::Original,
            is_inverted: false,
            transparency,
            is_stretched: false,
        }
    }
}

/// A picture to start from, at the size at which it will be painted over (what waits in the queue is no larger than that), and
/// its mask. Where only a part is cut out and painted, the picture keeps its size, within the server's longest side.
pub(crate) async fn initial<B: AsRef<[u8]> + Send + 'static>(
    app: &App,
    image: impl AsRef<[u8]> + Send + 'static,
    masking: Masking<B>,
) -> Result<(Picture, Option<Mask>), Refusal> {
    let Masking { width, height, .. } = masking;
    let painted = painted_size(app, width, height)?;
    let packed = Packed::open(app, image).await?;
    let mask = match masking.file {
        Some(file) => Some(Packed::open_named(app, file, "mask").await?),
        None => None,
    };
    let most = app.limits().max_side_px;
    let is_cut_out = masking.padding_px.is_some() && mask.is_some();
    let size = move |own: (usize, usize)| if is_cut_out { within(own, most) } else { painted(own) };
    // A mask is stretched to the picture's own size, and then as the picture.
    let own = (packed.header.width, packed.header.height);
    let of_mask = mask.as_ref().map_or(0, |mask| {
        let stretched = mask.bytes_to_resize(|_| own);
        stretched.saturating_add(packed.bytes_to_resize(&size))
    });
    let bytes = packed.bytes_to_resize(&size).saturating_add(of_mask);
    let (blur_px, padding_px, fill) = (masking.blur_px, masking.padding_px, masking.fill);
    let (transparency, is_inverted, is_stretched) = (masking.transparency, masking.is_inverted, masking.is_stretched);
    app.workshop
        .run(bytes, move || {
            let Layer { picture, alpha } = packed.decode_layer()?;
            let own = (picture.width, picture.height);
            let (width, height) = size(own);
            let gray = match mask {
                Some(mask) => Some(read(&mask.decode_layer()?, transparency)),
                None if transparency == Transparency::Painted => alpha.map(Gray::inverted),
                None => None,
            };
            let resized = picture.resized(width, height);
            let Some(gray) = gray else {
                return Ok((resized, None));
            };
            if (gray.width, gray.height) != own && !is_stretched {
                let message = format!(
                    "the mask has {}x{} pixels, and the image {}x{}: use a mask of the image's size",
                    gray.width, gray.height, own.0, own.1
                );
                return Err(Refusal::field("mask", message));
            }
            let gray = gray.resized(own.0, own.1).resized(width, height);
            let mask = Mask {
                blur_px,
                padding_px,
                fill,
                ..Mask::new(if is_inverted { gray.inverted() } else { gray })
            };
            Ok((resized, Some(mask)))
        })
        .await
}

fn read(layer: &Layer, transparency: Transparency) -> Gray {
    match (&layer.alpha, transparency) {
        (Some(alpha), Transparency::Painted) => alpha.clone().inverted(),
        (Some(alpha), Transparency::Stays) => alpha.clone(),
        (None, _) => Gray::of(&layer.picture),
    }
}

/// The size with no side longer than `most`.
fn within((width, height): (usize, usize), most: usize) -> (usize, usize) {
    let longest = width.max(height).max(1);
    if longest <= most {
        return (width, height);
    }
    let side = |side: usize| (side * most / longest).max(1);
    (side(width), side(height))
}
