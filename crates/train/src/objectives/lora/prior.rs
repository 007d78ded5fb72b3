//! What a model is not to forget while it learns a subject: pictures of the kind of thing that the subject is, painted by the
//! model itself before it learns (Ruiz et al. 2023), or a person's own.

use crate::config::{Origin, TrainConfig};
use crate::error::{Error, Result};
use crate::latents::encode_all;
use crate::own_pictures::OwnPicturesConfig;
use crate::stage_folder::StageFolder;
use crate::trainer::Budget;
use prima_checkpoint::export::write_bytes;
use prima_picture::{Format, QUALITY, encode};
use prima_pipeline::{LoadOptions, Pipeline, Request};
use serde::Deserialize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// The folder below `run_dir`.
pub(super) const NAME: &str = "prior";

/// What the pictures beside it were painted of.
const PROMPT: &str = "prompt.txt";

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PriorConfig {
    /// What the subject is one of: "a dog".
    pub(crate) prompt: String,
    /// Pictures that are painted for it.
    #[serde(default = "count")]
    pub(crate) count: usize,
    /// A folder of such pictures, in place of painted ones.
    #[serde(default)]
    pub(crate) pictures: Option<PathBuf>,
    /// What their loss counts beside that of the own pictures.
    #[serde(default = "weight")]
    pub(crate) weight: f32,
}

fn count() -> usize {
    24
}

fn weight() -> f32 {
    1.0
}

impl PriorConfig {
    /// Paints what is not there yet, and encodes it.
    pub(super) fn prepare(&self, config: &TrainConfig) -> Result<()> {
        if self.pictures.is_none() && self.count == 0 {
            let message = "lora.prior.count is 0, and there are no lora.prior.pictures: give one of them";
            return Err(Error::Config(message.into()));
        }
        let dir = config.stage_dir(NAME);
        let _folder = StageFolder::hold(&dir)?;
        let painted = dir.join("pictures");
        if self.pictures.is_none() {
            self.paint(config, &painted)?;
        }
        let source = config.own_pictures(&OwnPicturesConfig {
            path: self.pictures.clone().unwrap_or(painted),
            caption: Some(self.prompt.clone()),
            caption_column: None,
            resolution_px: config.pictures.as_ref().and_then(|own| own.resolution_px),
            buckets: true,
            flip: false,
        })?;
        encode_all(config, &source, &dir, Budget::default())?;
        Ok(())
    }

    /// Refuses pictures that were painted of something else.
    fn check_prompt(&self, folder: &Path) -> Result<()> {
        match std::fs::read_to_string(folder.join(PROMPT)) {
            Ok(before) if before != self.prompt => {
                let message = format!(
                    "has pictures of {before:?}, and lora.prior.prompt is {:?}: move it away, or give this run another run_dir",
                    self.prompt
                );
                Err(Error::file(folder, message))
            }
            _ => Ok(()),
        }
    }

    fn paint(&self, config: &TrainConfig, folder: &Path) -> Result<()> {
        self.check_prompt(folder)?;
        let path = |number: usize| folder.join(format!("{number:05}.png"));
        let missing: Vec<usize> = (0..self.count).filter(|number| !path(*number).exists()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let Origin::Model(model) = config.origin()? else {
            let message = "lora.prior is painted by a `model`, and this run starts at random: give lora.prior.pictures";
            return Err(Error::Config(message.into()));
        };
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        write_bytes(&folder.join(PROMPT), self.prompt.as_bytes())?;
        let pipeline = Pipeline::load(model, &LoadOptions::default())?;
        for number in missing {
            let request = Request {
                prompt: self.prompt.clone(),
                seed: config.seed + number as u64,
                ..Request::default()
            };
            let painted = pipeline.paint(&request, &mut |_| ControlFlow::Continue(()))?;
            for picture in painted.pictures {
                let bytes = encode(&picture, Format::Png, QUALITY, None);
                write_bytes(&path(number), &bytes.map_err(|e| Error::file(path(number), e))?)?;
            }
        }
        tracing::info!(
            "prior: {} pictures of {:?} in {}",
            self.count,
            self.prompt,
            folder.display()
        );
        Ok(())
    }
}
