//! A person's own pictures as what a run learns from: read from files, cut to the nearest of a few sizes, and mirrored if asked.

use crate::error::{Error, Result};
use crate::picture_source::{Cut, PictureSource, Sample};
use prima_checkpoint::ModelSource;
use prima_data::pictures::{Pictures, Wording, buckets, fitted, nearest};
use prima_pipeline::ModelCard;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// The section `pictures` of a configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnPicturesConfig {
    /// A folder of pictures with words beside them or in a table, a folder of tar shards or of parquet files, or one of these.
    pub(crate) path: PathBuf,
    /// For pictures that have no words of their own.
    #[serde(default)]
    pub(crate) caption: Option<String>,
    /// The column of words in a table.
    #[serde(default)]
    pub(crate) caption_column: Option<String>,
    /// Pictures are cut to about the area of a square of this side; the model's own where absent.
    #[serde(default)]
    pub(crate) resolution_px: Option<usize>,
    /// Cut each to the nearest of several shapes, not to a square.
    #[serde(default = "yes")]
    pub(crate) buckets: bool,
    /// Every picture a second time, mirrored.
    #[serde(default)]
    pub(crate) flip: bool,
}

fn yes() -> bool {
    true
}

/// Sides from which SDXL's trainers, and it is what the models know, keep to multiples of 64.
const LARGE_PX: usize = 512;
const LARGE_MULTIPLE_PX: usize = 64;

/// What sizes a model paints.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Canvas {
    pub(crate) side_px: usize,
    /// Sides have to be multiples of this.
    pub(crate) multiple_px: usize,
    /// Width and height of every picture that it was trained on, where it says so.
    pub(crate) sizes: Vec<[usize; 2]>,
}

/// A model's own settings.
pub(crate) fn model_card(model: &ModelSource) -> Result<ModelCard> {
    if !model.exists("prima.json") {
        return Ok(ModelCard::default());
    }
    let text = model.read_bytes("prima.json")?;
    let file = format!("prima.json of {}", model.name());
    Ok(ModelCard::parse(&String::from_utf8_lossy(&text), &file)?)
}

impl Canvas {
    pub(crate) fn of(model: &ModelSource) -> Result<Self> {
        let card = model_card(model)?;
        let (unet, vae) = (model.json("unet", "config.json")?, model.json("vae", "config.json")?);
        let levels = |json: &serde_json::Value, field: &str| json[field].as_array().map_or(1, Vec::len).max(1) as u32;
        // TAESD has all its blocks in lists of its own.
        let blocks = if vae["block_out_channels"].is_array() {
            "block_out_channels"
        } else {
            "encoder_block_out_channels"
        };
        let halvings = levels(&vae, blocks) - 1;
        let cell_px = 1 << halvings;
        let latents = unet["sample_size"].as_u64().or_else(|| unet["sample_size"][0].as_u64());
        let latents = latents.unwrap_or(SAMPLE_SIZE);
        Ok(Self {
            side_px: card.width.unwrap_or(latents as usize * cell_px),
            multiple_px: cell_px << (levels(&unet, "block_out_channels") - 1),
            sizes: card.sizes,
        })
    }
}

/// Of UNets whose config does not say.
const SAMPLE_SIZE: u64 = 64;

pub(crate) struct OwnPictures {
    pictures: Pictures,
    /// Width and height.
    sizes: Vec<[usize; 2]>,
    side_px: usize,
    flip: bool,
    /// Is the network told where a picture was cut from? Not one that was trained on whole pictures of one size.
    tells_cuts: bool,
}

impl OwnPictures {
    pub(crate) fn open(config: &OwnPicturesConfig, canvas: &Canvas) -> Result<Self> {
        let wording = Wording {
            caption: config.caption.clone(),
            column: config.caption_column.clone(),
        };
        let pictures = Pictures::open(&config.path, &wording)?;
        for skipped in pictures.skipped() {
            tracing::warn!("left out: {skipped}");
        }
        let side_px = config.resolution_px.unwrap_or(canvas.side_px);
        let multiple = if side_px >= LARGE_PX {
            canvas.multiple_px.max(LARGE_MULTIPLE_PX)
        } else {
            canvas.multiple_px
        };
        if side_px == 0 || !side_px.is_multiple_of(canvas.multiple_px) {
            let message = format!(
                "pictures.resolution_px is {side_px}: use a multiple of {}",
                canvas.multiple_px
            );
            return Err(Error::Config(message));
        }
        let is_own_size = config.resolution_px.is_none_or(|side| side == canvas.side_px);
        let sizes = match (config.buckets, is_own_size && !canvas.sizes.is_empty()) {
            (true, true) => canvas.sizes.clone(),
            (true, false) => buckets(side_px, multiple),
            (false, _) => vec![[side_px; 2]],
        };
        Ok(Self {
            pictures,
            sizes,
            side_px,
            flip: config.flip,
            tells_cuts: canvas.sizes.is_empty(),
        })
    }

    fn cut_to(&self, number: u64, sizes: &[[usize; 2]]) -> Result<Sample> {
        let count = self.pictures.len();
        let place = number as usize % (count * self.copies());
        let (which, is_mirrored) = (place % count, place >= count);
        let picture = self.pictures.read(which)?;
        let size = nearest(sizes, [picture.width, picture.height]).unwrap_or([self.side_px; 2]);
        let mut fitted = fitted(&picture, size);
        if is_mirrored {
            for row in fitted.picture.rgb.chunks_exact_mut(3 * size[0]) {
                row.as_chunks_mut::<3>().0.reverse();
            }
        }
        Ok(Sample {
            picture: fitted.picture,
            caption: self.pictures.caption(which).to_owned(),
            objects: Vec::new(),
            cut: self.tells_cuts.then_some(Cut {
                original_px: fitted.original_px,
                crop_px: fitted.crop_px,
            }),
        })
    }

    fn copies(&self) -> usize {
        if self.flip { 2 } else { 1 }
    }
}

impl PictureSource for OwnPictures {
    fn sample(&self, number: u64) -> Result<Sample> {
        self.cut_to(number, &[[self.side_px; 2]])
    }

    fn sample_of_any_size(&self, number: u64) -> Result<Sample> {
        self.cut_to(number, &self.sizes)
    }

    fn size_px(&self) -> [usize; 2] {
        [self.side_px; 2]
    }

    fn len(&self) -> Option<usize> {
        Some(self.pictures.len() * self.copies())
    }

    fn sha256(&self) -> Option<String> {
        let mut all = Sha256::new();
        all.update(self.pictures.sha256());
        all.update(format!("{:?} {}", self.sizes, self.flip));
        Some(format!("{:x}", all.finalize()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prima_picture::{Format, Picture, encode};

    #[test]
    fn pictures_of_all_shapes_are_cut_to_the_nearest_and_what_was_cut_is_told() {
        let folder = tempfile::tempdir().unwrap();
        for (name, width, height) in [("a", 300, 100), ("b", 64, 64)] {
            let rgb = (0..width * height).flat_map(|i| [(i % width / 4) as u8; 3]).collect();
            let bytes = encode(&Picture { width, height, rgb }, Format::Png, 90, None).unwrap();
            std::fs::write(folder.path().join(format!("{name}.png")), bytes).unwrap();
        }
        let section = |json: serde_json::Value| -> OwnPicturesConfig {
            let mut section = serde_json::json!({ "path": folder.path(), "caption": "a thing" });
            section
                .as_object_mut()
                .unwrap()
                .extend(json.as_object().unwrap().clone());
            serde_json::from_value(section).unwrap()
        };
        let canvas = Canvas {
            side_px: 128,
            multiple_px: 32,
            sizes: Vec::new(),
        };
        let open = |json, canvas: &Canvas| OwnPictures::open(&section(json), canvas);
        let own = open(serde_json::json!({ "flip": true }), &canvas).unwrap();
        let [wide, square, mirrored] = [0, 1, 2].map(|i| own.sample_of_any_size(i).unwrap());
        assert_eq!((own.len(), wide.picture.width, wide.picture.height), (Some(4), 192, 96));
        assert_eq!((square.picture.width, square.picture.height), (128, 128));
        let cut = wide.cut.unwrap();
        assert_eq!((cut.original_px, cut.crop_px), ([100, 300], [0, 48]));
        let row = |sample: &Sample| {
            sample.picture.rgb[..3 * 192]
                .iter()
                .step_by(3)
                .copied()
                .collect::<Vec<u8>>()
        };
        let back: Vec<u8> = row(&mirrored).into_iter().rev().collect();
        assert_eq!(row(&wide), back);
        // A model that knows one size is shown that, and told of no cut.
        let fixed = Canvas {
            sizes: vec![[128, 128]],
            ..canvas.clone()
        };
        let own = open(serde_json::json!({}), &fixed).unwrap();
        let sample = own.sample_of_any_size(0).unwrap();
        assert_eq!(
            (sample.picture.width, sample.picture.height, sample.cut),
            (128, 128, None)
        );
        let error = open(serde_json::json!({ "resolution_px": 100 }), &canvas)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("multiple of 32"), "{error}");
    }
}
