//! The nodes that say which part of a picture is painted.

use super::graph::{Graph, Known, Latent};
use super::wanted::{Channel, Image, MaskFrom, Masked, Start};
use crate::app::App;
use crate::numbers::whole_of;
use crate::pictures::Packed;
use crate::refusal::Refusal;
use prima_picture::{Gray, Layer};
use prima_pipeline::{Mask, MaskFill};

/// Most pixels that a mask grows by.
const MOST_GROWTH_PX: usize = 256;

impl Graph<'_> {
    /// What one of [`MASKING`] makes: a picture and its mask.
    pub fn masked(&self, id: &str, class: &str, known: &Known, depth: usize) -> Result<(Image, Masked), Refusal> {
        let mask = self.mask(id, depth)?;
        if class == "SetLatentNoiseMask" {
            let image = match self.latent(id, "samples", known, depth)? {
                Latent::Start(Start::Picture(image) | Start::Masked(image, _)) => image,
                Latent::Sampled(sampling) => Image::Sampled(sampling),
                Latent::Start(Start::Empty { .. }) => {
                    return Err(self.misfit(id, "samples", "a picture's latents", "EmptyLatentImage"));
                }
            };
            let fill = MaskFill::Original;
            return Ok((image, Masked { mask, fill }));
        }
        self.expect(id, "vae", "CheckpointLoaderSimple", 2, depth)?;
        let image = self.image(id, "pixels", known, depth)?;
        if class == "InpaintModelConditioning" {
            let fill = MaskFill::Original;
            return Ok((image, Masked { mask, fill }));
        }
        let by_px = match self.input(id, "grow_mask_by") {
            Ok(_) => self.whole(id, "grow_mask_by", 0, 64)? as isize,
            Err(_) => 6,
        };
        let mask = MaskFrom::Grown {
            mask: Box::new(mask),
            by_px,
        };
        let fill = MaskFill::Gray;
        Ok((image, Masked { mask, fill }))
    }

    fn mask(&self, of: &str, depth: usize) -> Result<MaskFrom, Refusal> {
        let (id, class, output) = self.link(of, "mask", depth)?;
        let loaded = |channel| {
            let name = self.text(id, "image")?.to_owned();
            Ok(MaskFrom::Loaded { name, channel })
        };
        match (class, output) {
            ("LoadImage", 1) => loaded(Channel::Alpha),
            ("LoadImageMask", 0) => match self.text(id, "channel")? {
                "alpha" => loaded(Channel::Alpha),
                "red" => loaded(Channel::Red),
                "green" => loaded(Channel::Green),
                "blue" => loaded(Channel::Blue),
                _ => Err(self.not_possible(id, "channel", "use alpha, red, green or blue")),
            },
            ("InvertMask", 0) => Ok(MaskFrom::Inverted(Box::new(self.mask(id, depth + 1)?))),
            ("GrowMask", 0) => {
                let by_px = whole_of(self.input(id, "expand")?).filter(|n| n.unsigned_abs() <= MOST_GROWTH_PX as u128);
                let most = format!("use -{MOST_GROWTH_PX} to {MOST_GROWTH_PX}");
                Ok(MaskFrom::Grown {
                    by_px: by_px.ok_or_else(|| self.not_possible(id, "expand", &most))? as isize,
                    mask: Box::new(self.mask(id, depth + 1)?),
                })
            }
            _ => Err(self.misfit(of, "mask", "a mask", class)),
        }
    }
}

impl MaskFrom {
    /// The file that it comes from.
    pub fn name(&self) -> &str {
        match self {
            Self::Loaded { name, .. } => name,
            Self::Inverted(mask) | Self::Grown { mask, .. } => mask.name(),
        }
    }

    fn of(&self, layer: &Layer) -> Gray {
        let Layer { picture, alpha } = layer;
        let (width, height) = (picture.width, picture.height);
        let channel = |i: usize| Gray {
            width,
            height,
            values: picture.rgb.iter().skip(i).step_by(3).copied().collect(),
        };
        match self {
            Self::Loaded { channel: which, .. } => match which {
                Channel::Alpha => alpha
                    .clone()
                    .map_or_else(|| Gray::flat(width, height, 0), Gray::inverted),
                Channel::Red => channel(0),
                Channel::Green => channel(1),
                Channel::Blue => channel(2),
            },
            Self::Inverted(mask) => mask.of(layer).inverted(),
            Self::Grown { mask, by_px } => mask.of(layer).grown(*by_px),
        }
    }
}

impl Masked {
    /// The mask of a picture of this size. What is not masked comes through the autoencoder, as it does in ComfyUI.
    pub async fn load(&self, app: &App, (width, height): (usize, usize)) -> Result<Mask, Refusal> {
        let packed = Packed::open_named(app, app.comfy_shelf.named(self.mask.name())?, "mask").await?;
        let bytes = packed.bytes_to_resize(|_| (width, height)).saturating_mul(2);
        let (mask, fill) = (self.mask.clone(), self.fill);
        let read = move || Ok(mask.of(&packed.decode_layer()?).resized(width, height));
        Ok(Mask {
            fill,
            keeps_original: false,
            ..Mask::new(app.workshop.run(bytes, read).await?)
        })
    }
}
