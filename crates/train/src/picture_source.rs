//! What a run learns from: pictures with captions, by number.

use crate::error::Result;
use prima_data::world::{self, World};
use prima_data::{Composer, SIZE_PX};
use prima_picture::Picture;
use prima_tensor::Tensor;
use serde::{Deserialize, Serialize};

/// A picture and the words for it.
pub(crate) struct Sample {
    pub(crate) picture: Picture,
    pub(crate) caption: String,
    /// For each pixel 0, or the number of the object seen there; empty where that is not known.
    pub(crate) objects: Vec<u8>,
    /// What it was cut from, where the network is to be told.
    pub(crate) cut: Option<Cut>,
}

/// What SDXL's micro-conditioning says of a picture beside its size (Podell et al. 2023, section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cut {
    /// Height and width in pixels of the file's picture.
    pub(crate) original_px: [usize; 2],
    /// Pixels that were cut off at the top and at the left.
    pub(crate) crop_px: [usize; 2],
}

/// An endless supply; the same number gives the same sample.
pub(crate) trait PictureSource: Send + Sync {
    /// A picture of the run's size.
    fn sample(&self, number: u64) -> Result<Sample>;

    /// A picture in one of the sizes that there are.
    fn sample_of_any_size(&self, number: u64) -> Result<Sample> {
        self.sample(number)
    }

    /// Width and height of the run's pictures in pixels.
    fn size_px(&self) -> [usize; 2];

    /// How many there are, where the supply has an end: then it begins again.
    fn len(&self) -> Option<usize> {
        None
    }

    /// Of what they are, where files of a person's own are read, which may change: a checksum.
    fn sha256(&self) -> Option<String> {
        None
    }
}

/// The scene generator's pictures in one size (width, height).
pub(crate) fn rendered(sources: &world::Sources, seed: u64, size_px: [usize; 2]) -> Result<Box<dyn PictureSource>> {
    let world = sources.open()?;
    Ok(Box::new(Rendered { world, seed, size_px }))
}

struct Rendered {
    world: World,
    seed: u64,
    size_px: [usize; 2],
}

impl PictureSource for Rendered {
    fn sample(&self, number: u64) -> Result<Sample> {
        let [width, height] = self.size_px;
        Ok(self.world.sample_sized(self.seed, number, (width, height)).into())
    }

    fn sample_of_any_size(&self, number: u64) -> Result<Sample> {
        Ok(self.world.sample(self.seed, number).into())
    }

    fn size_px(&self) -> [usize; 2] {
        self.size_px
    }
}

impl From<prima_data::world::Sample> for Sample {
    fn from(sample: prima_data::world::Sample) -> Self {
        Self {
            picture: Picture {
                width: sample.width,
                height: sample.height,
                rgb: sample.rgb,
            },
            caption: sample.caption,
            objects: sample.mask,
            cut: None,
        }
    }
}

impl PictureSource for Composer {
    fn sample(&self, number: u64) -> Result<Sample> {
        let sample = Composer::sample(self, number)?;
        let [width, height] = self.size_px();
        Ok(Sample {
            picture: Picture {
                width,
                height,
                rgb: sample.rgb,
            },
            caption: sample.caption,
            objects: Vec::new(),
            cut: None,
        })
    }

    fn size_px(&self) -> [usize; 2] {
        [SIZE_PX as usize; 2]
    }
}

/// Pictures of one size as `[B, H, W, 3]` in [-1, 1].
pub(crate) fn to_tensor(samples: &[Sample]) -> Tensor {
    let [width, height] = samples.first().map_or([0; 2], |s| [s.picture.width, s.picture.height]);
    let bytes = samples.iter().flat_map(|s| &s.picture.rgb);
    Tensor::from_vec(
        bytes.map(|&b| to_signed(b)).collect(),
        &[samples.len(), height, width, 3],
    )
}

/// A byte of a picture to the networks' range, -1 to 1.
pub(crate) fn to_signed(byte: u8) -> f32 {
    f32::from(byte) / 127.5 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn rendered_pictures_have_the_size_of_the_run_and_come_again_by_number() {
        let models = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/models3d"));
        let sources = serde_json::from_value(serde_json::json!({ "models": models })).unwrap();
        let source = rendered(&sources, 3, [96, 64]).unwrap();
        let (first, again, other) = (source.sample(5), source.sample(5), source.sample(6));
        let [first, again, other] = [first, again, other].map(Result::unwrap);
        assert_eq!((first.picture.width, first.picture.height), (96, 64));
        assert!(first.picture == again.picture && first.caption == again.caption && !first.caption.is_empty());
        assert!(first.picture != other.picture);
        assert_eq!(to_tensor(&[first, other]).shape(), [2, 64, 96, 3]);
    }
}
