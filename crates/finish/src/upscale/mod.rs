//! Enlarging pictures with the networks of Real-ESRGAN.

mod names;
mod ncnn;
mod paint;
mod tiles;

use crate::Error;
use crate::progress::{OnProgress, Progress};
use crate::weights::{Mixed, Weights, check_no_pickle};
use names::Names;
use prima_checkpoint::Reader;
use prima_models::{Cancelled, RrdbNet, RrdbNetConfig, SrvggNetCompact, SrvggNetCompactConfig};
use prima_picture::{Gray, Layer, MAX_SIDE_PX, Picture, resize_bytes};
use prima_tensor::{DType, Tensor};
use std::path::Path;
use tiles::Cut;

/// realesr-animevideov3, the network inside the binary.
static EMBEDDED: &[u8] = include_bytes!("../../../../assets/realesr-animevideov3/model.safetensors");
/// What it is called.
pub const EMBEDDED_NAME: &str = "realesr-animevideov3";

/// Most that filtering a picture to its last size may take, in bytes.
const MAX_RESIZE_BYTES: usize = 1 << 30;

enum Network {
    Rrdb(Box<RrdbNet>),
    Compact(SrvggNetCompact),
}

/// A network that enlarges pictures, and its name.
pub struct Upscaler {
    name: String,
    network: Network,
}

impl Upscaler {
    /// The network inside the binary, which enlarges four times.
    pub fn embedded(dtype: DType) -> Result<Self, Error> {
        let reader = Reader::from_static(EMBEDDED_NAME, EMBEDDED)?;
        Self::of(named(reader), EMBEDDED_NAME.to_owned(), dtype)
    }

    /// A file of an RRDBNet or an SRVGGNetCompact: safetensors with the keys of Real-ESRGAN, BasicSR or ESRGAN, or a .param of
    /// ncnn with its .bin beside it. Convolutions are kept in `dtype`.
    pub fn open(path: &Path, dtype: DType) -> Result<Self, Error> {
        Self::of(weights(path)?, name_of(path), dtype)
    }

    /// `share` of the values of one file and the rest of another of the same network: how realesr-general-x4v3 and
    /// realesr-general-wdn-x4v3 together denoise as strongly as wanted (Real-ESRGAN's `denoise_strength` is `share`).
    pub fn mixed(path: &Path, other: &Path, share: f32) -> Result<Self, Error> {
        let (first, second) = (weights(path)?, weights(other)?);
        let Some(config) = SrvggNetCompactConfig::of_shapes(&|key| first.shape(key)) else {
            return Err(Error::Kind {
                file: path.display().to_string(),
                expected: "an SRVGGNetCompact, which are the networks that are mixed",
                found: first.some_keys(),
            });
        };
        let mixed = Mixed { first, second, share };
        Ok(Self {
            name: name_of(path),
            network: Network::Compact(mixed.load(|source| SrvggNetCompact::new(&config, source))?),
        })
    }

    fn of(weights: Weights, name: String, dtype: DType) -> Result<Self, Error> {
        let network = if let Some(config) = RrdbNetConfig::of_shapes(&|key| weights.shape(key)) {
            Network::Rrdb(Box::new(weights.load(dtype, |source| RrdbNet::new(&config, source))?))
        } else if let Some(config) = SrvggNetCompactConfig::of_shapes(&|key| weights.shape(key)) {
            Network::Compact(weights.load(dtype, |source| SrvggNetCompact::new(&config, source))?)
        } else {
            return Err(Error::Kind {
                file: weights.name().to_owned(),
                expected: "an upscaler of the Real-ESRGAN family (RRDBNet or SRVGGNetCompact)",
                found: weights.some_keys(),
            });
        };
        Ok(Self { name, network })
    }

    /// The file's name without its ending.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many times larger, each way, the network makes a picture.
    pub fn scale(&self) -> usize {
        match &self.network {
            Network::Rrdb(network) => network.scale(),
            Network::Compact(network) => network.scale(),
        }
    }

    fn forward(&self, x: &Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<Tensor, Cancelled> {
        match &self.network {
            Network::Rrdb(network) => network.forward(x, keep_going),
            Network::Compact(network) => network.forward(x, keep_going),
        }
    }

    /// Memory that enlarging takes at most, in bytes, with the picture that comes of it and without the one that there was.
    pub fn bytes(from: (usize, usize), to: (usize, usize)) -> usize {
        const LARGEST_TILE: usize = 560;
        // Of either network: the widest activations of a pixel, with what becomes of it.
        const PIXEL_BYTES: usize = 2560;
        let tile = from.0.min(LARGEST_TILE) * from.1.min(LARGEST_TILE) * PIXEL_BYTES;
        let made = to.0.saturating_mul(to.1).saturating_mul(3);
        tile.saturating_add(made.saturating_mul(6))
    }

    /// Tiles that take about half a gigabyte at the most. The compact network sees as far as its tiles' context, so that they fit
    /// to the bit; the other sees further, but hardly: its tiles fade into each other.
    fn cut(&self) -> Cut {
        match &self.network {
            Network::Compact(network) => Cut {
                core: 512,
                context: network.reach_px(),
                fade: 0,
                multiple: 1,
            },
            Network::Rrdb(network) => {
                let multiple = network.side_multiple();
                Cut {
                    core: 384 * multiple,
                    context: 32 * multiple,
                    fade: 8 * multiple,
                    multiple,
                }
            }
        }
    }

    /// The picture at another size, transparency and all. The network is run as often as it takes to reach the size, and what is
    /// too large then is made smaller.
    pub fn enlarge(&self, layer: &Layer, width: usize, height: usize, on: OnProgress) -> Result<Layer, Error> {
        check_sides(width, height, "a side has 1 to 16384 px")?;
        let passes = self.passes((layer.picture.width, layer.picture.height), (width, height))?;
        let grey = layer.alpha.as_ref().map(Gray::to_picture);
        let parts = if grey.is_some() { 2 } else { 1 };
        let at = |part: usize, on: OnProgress, picture: &Picture| {
            self.run(picture, &passes, (width, height), &mut |progress: Progress| {
                let total = progress.total * parts;
                on(Progress {
                    done: progress.done + part * progress.total,
                    total,
                })
            })
        };
        let picture = at(0, on, &layer.picture)?;
        let alpha = grey.map(|grey| at(1, on, &grey)).transpose()?;
        Ok(Layer {
            picture,
            alpha: alpha.map(|grey| Gray {
                width,
                height,
                values: grey.rgb.into_iter().skip(1).step_by(3).collect(),
            }),
        })
    }

    /// How many times each run of the network makes the picture larger; less than its scale where that is enough.
    fn passes(&self, from: (usize, usize), to: (usize, usize)) -> Result<Vec<usize>, Error> {
        let scale = self.scale();
        let mut passes = Vec::new();
        let (mut width, mut height) = from;
        while scale > 1 && (width < to.0 || height < to.1) {
            let enough = |times: &usize| width * times >= to.0 && height * times >= to.1;
            let times = (1..=scale).filter(|times| scale.is_multiple_of(*times)).find(enough);
            let times = times.unwrap_or(scale);
            (width, height) = (width * times, height * times);
            check_sides(
                width,
                height,
                "the network's result on the way there would be that large; ask for less",
            )?;
            passes.push(times);
        }
        // One more run where the size stays: an upscaler also mends.
        if passes.is_empty() && (width, height) == to {
            passes.push(1);
        }
        if resize_bytes((width, height), to) > MAX_RESIZE_BYTES && (width, height) != to {
            let fix = format!("take a size that is the picture's times 1 to {scale}, or a smaller one");
            return Err(Error::Size {
                width: to.0,
                height: to.1,
                fix,
            });
        }
        Ok(passes)
    }

    fn run(&self, picture: &Picture, passes: &[usize], to: (usize, usize), on: OnProgress) -> Result<Picture, Error> {
        let mut current = None;
        for times in passes {
            let from = current.as_ref().unwrap_or(picture);
            current = Some(self.pass(from, *times, on)?);
        }
        let last = current.as_ref().unwrap_or(picture);
        Ok(last.resized(to.0, to.1))
    }
}

fn check_sides(width: usize, height: usize, fix: &str) -> Result<(), Error> {
    if width.min(height) > 0 && width.max(height) <= MAX_SIDE_PX {
        return Ok(());
    }
    Err(Error::Size {
        width,
        height,
        fix: fix.to_owned(),
    })
}

fn name_of(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn named(reader: Reader) -> Weights {
    let names = Names::of(reader.keys());
    Weights::new(reader, |key| names.rename(key))
}

fn weights(path: &Path) -> Result<Weights, Error> {
    if path
        .extension()
        .is_some_and(|ending| ending == "param" || ending == "bin")
        && path.with_extension("param").exists()
    {
        return Ok(named(ncnn::open(path)?));
    }
    check_no_pickle(path)?;
    Ok(named(Reader::open(path)?))
}
