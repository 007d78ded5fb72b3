//! Pictures in the manner of others: AdaIN.

use crate::Error;
use crate::progress::{OnProgress, Progress};
use crate::weights::{Weights, check_no_pickle};
use prima_checkpoint::Reader;
use prima_models::style_transfer::adain::UNUSED_VGG_KEYS;
use prima_models::{AdainConfig, AdainDecoder, VggEncoder, restyled};
use prima_picture::Picture;
use prima_tensor::{DType, Tensor, device};
use std::path::Path;

mod colours;

/// Largest picture: its widest activations take 256 bytes a pixel.
const MAX_PIXELS: usize = 4 << 20;

/// AdaIN's two networks.
pub struct Stylist {
    vgg: VggEncoder,
    decoder: AdainDecoder,
}

/// How a picture is to be restyled.
pub struct Styling<'a> {
    /// Pictures and how much of each; the shares are made to sum to 1.
    pub styles: &'a [(Picture, f64)],
    /// 0 for the picture as its features give it back, 1 for all of the style.
    pub strength: f64,
    /// Styles are given the picture's colours first, and so leave them to it.
    pub keep_colours: bool,
}

fn opened(path: &Path) -> Result<Reader, Error> {
    check_no_pickle(path)?;
    Ok(Reader::open(path)?)
}

impl Stylist {
    /// The files of naoto0804/pytorch-AdaIN, `vgg_normalised` and `decoder`, as safetensors.
    pub fn open(vgg: &Path, decoder: &Path, dtype: DType) -> Result<Self, Error> {
        let weights = Weights::new(opened(vgg)?.ignoring(&UNUSED_VGG_KEYS), str::to_owned);
        let Some(config) = AdainConfig::of_shapes(&|key| weights.shape(key)) else {
            return Err(Error::Kind {
                file: weights.name().to_owned(),
                expected: "AdaIN's VGG (vgg_normalised)",
                found: weights.some_keys(),
            });
        };
        let decoder = Weights::new(opened(decoder)?, str::to_owned);
        Ok(Self {
            vgg: weights.load(dtype, |source| VggEncoder::new(&config, source))?,
            decoder: decoder.load(dtype, |source| AdainDecoder::new(&config, source))?,
        })
    }

    /// The picture in the manner of others, of its own size.
    pub fn restyle(&self, picture: &Picture, styling: &Styling, on: OnProgress) -> Result<Picture, Error> {
        for picture in styling.styles.iter().map(|(style, _)| style).chain([picture]) {
            check_size(picture)?;
        }
        let total = styling.styles.len() + 2;
        let mut done = 0;
        let mut keep_going = |done: usize| on(Progress { done, total }).is_continue();
        let made = device::catch(|| {
            let mut features = |picture: &Tensor| {
                let features = self.vgg.forward(picture, &mut || keep_going(done))?;
                done += 1;
                Ok::<_, Error>(features)
            };
            let own = values(picture);
            let content = features(&own)?;
            let sum: f64 = styling.styles.iter().map(|(_, share)| share).sum();
            let mut styles = Vec::new();
            for (style, share) in styling.styles {
                let mut style = values(style);
                if styling.keep_colours {
                    style = colours::given(&style, &own);
                }
                styles.push((features(&style)?, share / sum));
            }
            let mixed = restyled(&content, &styles, styling.strength);
            let made = self.decoder.forward(&mixed, &mut || keep_going(total - 1))?;
            made.data();
            Ok::<_, Error>(made)
        })??;
        Ok(cut(&made, picture))
    }
}

fn check_size(picture: &Picture) -> Result<(), Error> {
    let (width, height) = (picture.width, picture.height);
    // Below, a feature has no neighbour to be padded with.
    if width.min(height) >= 16 && width * height <= MAX_PIXELS {
        return Ok(());
    }
    Err(Error::Size {
        width,
        height,
        fix: "styles are given to pictures of 16 px a side to 4 megapixels; enlarge them afterwards".to_owned(),
    })
}

/// `[1, H, W, 3]` in 0..1.
fn values(picture: &Picture) -> Tensor {
    let values = picture.rgb.iter().map(|byte| f32::from(*byte) / 255.0);
    Tensor::from_vec(values.collect(), &[1, picture.height, picture.width, 3])
}

/// What was made, without what its size was rounded up by.
fn cut(made: &Tensor, picture: &Picture) -> Picture {
    let row = made.dim(2) * 3;
    let rows = made.data().chunks_exact(row).take(picture.height);
    let bytes = rows.flat_map(|row| &row[..picture.width * 3]);
    Picture {
        rgb: bytes
            .map(|value| (value.clamp(0.0, 1.0) * 255.0).round() as u8)
            .collect(),
        ..*picture
    }
}
