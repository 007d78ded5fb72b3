//! Cutting things out of pictures: Segment Anything, soft edges, other backgrounds.

mod automatic;
mod matting;
mod names;
mod resample;

pub use matting::soft_edges;

use crate::Error;
use crate::weights::{Weights, check_no_pickle};
use automatic::Found;
use prima_checkpoint::Reader;
use prima_models::{Sam, SamConfig, SamPrompt};
use prima_picture::Picture;
use prima_tensor::{Tensor, device};
use resample::bilinear;
use std::path::Path;

/// Means and spreads of ImageNet's pictures, of bytes.
const MEAN: [f32; 3] = [123.675, 116.28, 103.53];
const SPREAD: [f32; 3] = [58.395, 57.12, 57.375];

/// A network that says which pixels belong to what is pointed at.
pub struct Segmenter {
    name: String,
    sam: Sam,
}

/// What is meant, in pixels of the picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pointed {
    /// Places in it.
    pub inside: Vec<[f32; 2]>,
    /// Places outside of it.
    pub outside: Vec<[f32; 2]>,
    /// Left, top, right, bottom around it.
    pub bounds: Option<[f32; 4]>,
}

/// Which pixels belong to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Mask {
    pub width: usize,
    pub height: usize,
    /// 255 inside, 0 outside, row by row.
    pub values: Vec<u8>,
    /// How well the network thinks it fits, 0 to 1.
    pub score: f32,
}

/// A picture that the network has seen, which takes seconds; every question about it is then answered in a fraction of one.
pub struct Seen<'a> {
    segmenter: &'a Segmenter,
    embedding: Tensor,
    width: usize,
    height: usize,
    /// Pixels of the encoded picture per pixel of this one.
    scale: f32,
}

impl Segmenter {
    /// A safetensors file of Segment Anything (ViT-B, L or H), under its authors' keys or those of transformers.
    pub fn open(path: &Path) -> Result<Self, Error> {
        check_no_pickle(path)?;
        let reader = Reader::open(path)?;
        let keys: Vec<String> = reader.keys().map(|key| names::bare(key).to_owned()).collect();
        let last = |head: &str| names::last_layer(keys.iter().map(String::as_str), head);
        // Transformers' files may hold the one table under two names.
        let has_both = keys.iter().any(|key| key == names::POSITIONS);
        let reader = if has_both {
            reader.ignoring(&[names::POSITIONS_TWICE])
        } else {
            reader
        };
        let weights = Weights::new(reader, |key| {
            if has_both && key.contains(names::POSITIONS_TWICE) {
                return key.to_owned();
            }
            names::rename(key, &last)
        });
        let Some(config) = SamConfig::of_shapes(&|key| weights.shape(key)) else {
            return Err(Error::Kind {
                file: weights.name().to_owned(),
                expected: "a Segment Anything model (ViT-B, L or H)",
                found: weights.some_keys(),
            });
        };
        Ok(Self {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            sam: weights.load_at_once(|source| Sam::new(&config, source))?,
        })
    }

    /// The file's name without its ending.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Encodes a picture. `keep_going` is asked between layers.
    pub fn look(&self, picture: &Picture, keep_going: &mut dyn FnMut() -> bool) -> Result<Seen<'_>, Error> {
        let side = self.sam.config().image_size();
        let scale = side as f32 / picture.width.max(picture.height) as f32;
        let scaled = |length: usize| ((length as f32 * scale).round() as usize).clamp(1, side);
        let (width, height) = (scaled(picture.width), scaled(picture.height));
        let small = picture.resized(width, height);
        let mut values = vec![0.0; side * side * 3];
        for (row, into) in small.rgb.chunks_exact(width * 3).zip(values.chunks_exact_mut(side * 3)) {
            for (i, (byte, value)) in row.iter().zip(into).enumerate() {
                *value = (f32::from(*byte) - MEAN[i % 3]) / SPREAD[i % 3];
            }
        }
        let values = Tensor::from_vec(values, &[1, side, side, 3]);
        let embedding = device::catch(|| self.sam.encode(&values, keep_going))??;
        Ok(Seen {
            segmenter: self,
            embedding,
            width: picture.width,
            height: picture.height,
            scale,
        })
    }
}

impl Seen<'_> {
    /// What is pointed at: of one place alone the likeliest of a part, a whole and something between; of several the best
    /// single answer.
    pub fn mask(&self, pointed: &Pointed) -> Result<Mask, Error> {
        let answers = self.answers(pointed)?;
        let is_vague = pointed.bounds.is_none() && pointed.inside.len() + pointed.outside.len() == 1;
        let choice = if is_vague { &answers[1..] } else { &answers[..1] };
        let best = choice.iter().max_by(|a, b| a.score.total_cmp(&b.score));
        best.map(|found| self.at_full_size(found)).ok_or(Error::NothingFound)
    }

    /// Everything there is in the picture, the surest first: a grid of `side` x `side` places is pointed at, and of answers
    /// that are nearly the same the surest is kept.
    pub fn all(&self, side: usize, keep_going: &mut dyn FnMut() -> bool) -> Result<Vec<Mask>, Error> {
        let mut found = Vec::new();
        for i in 0..side * side {
            if !keep_going() {
                return Err(Error::Cancelled);
            }
            let place = |i: usize, length: usize| (i as f32 + 0.5) / side as f32 * length as f32;
            let point = [place(i % side, self.width), place(i / side, self.height)];
            let pointed = Pointed {
                inside: vec![point],
                ..Pointed::default()
            };
            found.extend(self.answers(&pointed)?.into_iter().skip(1).filter(Found::is_sure));
        }
        let kept = automatic::without_doubles(found);
        Ok(kept.iter().map(|found| self.at_full_size(found)).collect())
    }

    fn answers(&self, pointed: &Pointed) -> Result<Vec<Found>, Error> {
        let scaled = |[x, y]: [f32; 2]| [x * self.scale, y * self.scale];
        let inside = pointed.inside.iter().map(|point| (scaled(*point), true));
        let outside = pointed.outside.iter().map(|point| (scaled(*point), false));
        let prompt = SamPrompt {
            points: inside.chain(outside).collect(),
            bounds: pointed.bounds.map(|bounds| bounds.map(|side| side * self.scale)),
            mask: None,
        };
        let masks = device::catch(|| {
            let masks = self.segmenter.sam.masks(&self.embedding, &prompt);
            masks.logits.data();
            masks
        })?;
        let side = masks.logits.dim(1);
        // The rest of the square is what was filled up.
        let fraction = |length: usize| length as f32 * self.scale / self.segmenter.sam.config().image_size() as f32;
        let inside = [fraction(self.width), fraction(self.height)].map(|part| (part * side as f32).ceil() as usize);
        let logits = masks.logits.data().chunks_exact(side * side);
        let found = logits
            .zip(&masks.iou_scores)
            .map(|(logits, score)| Found::new(logits, side, inside, *score));
        Ok(found.collect())
    }

    /// Its logits at the size of the picture, whose part of the encoded square they are; above 0 is inside.
    fn at_full_size(&self, found: &Found) -> Mask {
        let (square, side) = (self.segmenter.sam.config().image_size(), found.side);
        let per = side as f32 / square as f32;
        let per_pixel = self.scale * per;
        let step = [per_pixel; 2];
        let values = bilinear(&found.logits, [side; 2], [self.width, self.height], step);
        Mask {
            width: self.width,
            height: self.height,
            values: values
                .into_iter()
                .map(|value| if value > 0.0 { 255 } else { 0 })
                .collect(),
            score: found.score,
        }
    }
}
