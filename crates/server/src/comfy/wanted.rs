//! What a graph comes to: pictures, and all that they depend on.

use prima_pipeline::{LoraChoice, MaskFill};
use std::collections::HashSet;

/// A picture to send: what it is, and under which node.
#[derive(Debug, PartialEq)]
pub(super) struct Output {
    pub node: String,
    pub kind: OutputKind,
    pub image: Image,
}

#[derive(Debug, PartialEq)]
pub(super) enum OutputKind {
    Save {
        prefix: String,
    },
    Preview,
    Socket,
    /// Under an id.
    Cache,
}

/// A picture, or several of one sampler.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Image {
    Loaded(String),
    Scaled {
        image: Box<Image>,
        width: usize,
        height: usize,
        crop: bool,
        nearest: bool,
    },
    /// By a network of this name.
    Upscaled {
        image: Box<Image>,
        model: String,
    },
    Sampled(Box<Sampling>),
}

/// Latents before a sampler.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Start {
    Empty { width: usize, height: usize, batch: usize },
    Picture(Image),
    Masked(Image, Masked),
}

/// A sampler and all it depends on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sampling {
    pub node: String,
    /// As the lists have it.
    pub model: String,
    pub seed: i128,
    pub steps: usize,
    pub cfg: f64,
    pub sampler: String,
    pub scheduler: String,
    pub denoise: f64,
    pub positive: Conditioning,
    pub negative: Conditioning,
    pub loras: Vec<LoraChoice>,
    pub start: Start,
    /// As many pictures of each that it starts from.
    pub copies: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Conditioning {
    pub text: String,
    /// CLIPSetLastLayer's: layers left out at the end.
    pub left_out: Option<usize>,
    /// The ControlNets that it was led through.
    pub steered: Vec<Steered>,
    /// Where it counts; `None`: everywhere.
    pub area: Option<Area>,
    /// Others that count in areas of their own.
    pub parts: Vec<Part>,
}

impl Conditioning {
    pub fn of(text: &str, left_out: Option<usize>) -> Self {
        Self {
            text: text.to_owned(),
            left_out,
            steered: Vec::new(),
            area: None,
            parts: Vec::new(),
        }
    }
}

/// A part of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    /// Left, top, width and height.
    pub sides: [f64; 4],
    /// Or shares of the picture's sides.
    pub in_pixels: bool,
    pub strength: f64,
}

/// A text of a part.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub text: String,
    pub area: Area,
}

/// A mask, in which white is painted.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum MaskFrom {
    Loaded { name: String, channel: Channel },
    Inverted(Box<Self>),
    Grown { mask: Box<Self>, by_px: isize },
}

/// What of a picture's file is a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    /// What is transparent.
    Alpha,
    Red,
    Green,
    Blue,
}

/// What is painted of a picture, and what is there before.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Masked {
    pub mask: MaskFrom,
    pub fill: MaskFill,
}

/// Nodes, and those of their outputs that are latents with a mask.
pub(super) const MASKING: [(&str, u64); 3] = [
    ("VAEEncodeForInpaint", 0),
    ("SetLatentNoiseMask", 0),
    ("InpaintModelConditioning", 2),
];

/// A ControlNet and the picture that it reads.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Steered {
    pub name: String,
    pub image: Image,
    pub strength: f64,
    pub start: f64,
    pub end: f64,
}

impl Image {
    /// Samplers in the order in which they run, each once.
    pub fn samplings<'a>(&'a self, found: &mut Vec<&'a Sampling>) {
        match self {
            Self::Loaded(_) => {}
            Self::Scaled { image, .. } | Self::Upscaled { image, .. } => image.samplings(found),
            Self::Sampled(sampling) => {
                for steered in &sampling.positive.steered {
                    steered.image.samplings(found);
                }
                if let Start::Picture(image) | Start::Masked(image, _) = &sampling.start {
                    image.samplings(found);
                }
                let known: HashSet<&str> = found.iter().map(|sampling| sampling.node.as_str()).collect();
                if !known.contains(sampling.node.as_str()) {
                    found.push(sampling);
                }
            }
        }
    }
}
