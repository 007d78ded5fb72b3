//! The file that describes a whole run: where it lies, what its networks start from, and one section a stage, which the
//! stage's own file reads.

use crate::error::{Error, Result};
use crate::export::ExportConfig;
use crate::latents::LatentsConfig;
use crate::noising::default_scheduler;
use crate::objectives::StageConfig;
use crate::own_pictures::{Canvas, OwnPictures, OwnPicturesConfig};
use crate::picture_source::{PictureSource, rendered};
use crate::stages;
use prima_checkpoint::ModelSource;
use prima_data::{Composer, ComposerOptions, Dataset, world};
use prima_pipeline::{Family, families};
use prima_schedulers::{SchedulerConfig, SchedulerKind};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Deserialize)]
pub struct TrainConfig {
    /// Folder of the data set (see `prima_data`), whose words the tokenizers split; its pictures too, unless there is a `world`
    /// or there are `pictures`. A run from a model that has these needs none.
    #[serde(default)]
    pub(crate) data_dir: PathBuf,
    /// A person's own pictures, in place of the data set's.
    #[serde(default)]
    pub(crate) pictures: Option<OwnPicturesConfig>,
    /// Pictures that the scene generator renders, in place of the data set's.
    #[serde(default)]
    pub(crate) world: Option<world::Sources>,
    /// Weights of an EfficientNet-lite0, for the stages that measure pictures by what it sees.
    #[serde(default)]
    pub(crate) feature_network: Option<PathBuf>,
    /// Folder of states, caches, logs and sample grids.
    pub(crate) run_dir: PathBuf,
    #[serde(default)]
    pub(crate) seed: u64,
    /// The model that the networks start from: a folder, a file, `embedded` or a name in the hub's cache.
    #[serde(default)]
    model: Option<String>,
    /// The networks that start at random, where there is no `model`.
    #[serde(default)]
    networks: Option<NetworkConfigs>,
    /// The noise that is trained with, as in a `scheduler_config.json`: the model's where absent.
    #[serde(default)]
    scheduler: Option<SchedulerConfig>,
    #[serde(default)]
    pub(crate) latents: LatentsConfig,
    pub(crate) export: ExportConfig,
    /// Captions of the sample grids.
    #[serde(default)]
    pub(crate) sample_prompts: Vec<String>,
    /// Sections of stages by name.
    #[serde(flatten)]
    pub(crate) sections: Map<String, Value>,
    /// `model`, found.
    #[serde(skip)]
    source: Option<ModelSource>,
    /// What sizes it paints.
    #[serde(skip)]
    canvas: Option<Canvas>,
}

/// The `config.json` of each component, as diffusers and transformers write them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkConfigs {
    pub(crate) vae: Value,
    pub(crate) unet: Value,
    pub(crate) text_encoder: Value,
    pub(crate) text_encoder_2: Value,
}

/// What networks start from.
pub(crate) enum Origin<'a> {
    Model(&'a ModelSource),
    Networks(&'a NetworkConfigs),
}

impl TrainConfig {
    /// Reads a JSON file; paths in it are relative to the current directory. `find` is asked for the `model`, if the file names
    /// one.
    pub fn open<E: std::fmt::Display>(
        path: &Path,
        find: impl FnOnce(&str) -> std::result::Result<ModelSource, E>,
    ) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        Self::parse(&text, find).map_err(|e| Error::file(path, e))
    }

    fn parse<E: std::fmt::Display>(
        text: &str,
        find: impl FnOnce(&str) -> std::result::Result<ModelSource, E>,
    ) -> std::result::Result<Self, String> {
        let mut config: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        config.read_old_names();
        config.source = config
            .model
            .as_deref()
            .map(find)
            .transpose()
            .map_err(|e| e.to_string())?;
        config.check().map_err(|e| e.to_string())?;
        // A data set's pictures have a size of their own.
        if let Some(model) = config
            .source
            .as_ref()
            .filter(|_| config.pictures.is_some() || config.world.is_some())
        {
            config.canvas = Some(Canvas::of(model).map_err(|e| e.to_string())?);
        }
        Ok(config)
    }

    /// What older files call things.
    fn read_old_names(&mut self) {
        for stage in stages::STAGES {
            let Some(old) = stage.old_name else { continue };
            if let Some(section) = self.sections.remove(old) {
                self.sections.insert(stage.name.into(), section);
            }
            if self.export.stage == old {
                self.export.stage = stage.name.into();
            }
        }
    }

    fn check(&self) -> Result<()> {
        let needs_data =
            matches!(self.origin()?, Origin::Networks(_)) || (self.world.is_none() && self.pictures.is_none());
        if needs_data && self.data_dir.as_os_str().is_empty() {
            let message = "there is no data_dir, nor `pictures` for a `model`: say what to learn from";
            return Err(Error::Config(message.into()));
        }
        for name in self.sections.keys() {
            if stages::named(name).is_none() {
                let known: Vec<&str> = stages::STAGES.iter().map(|stage| stage.name).collect();
                let message = format!("there is no stage {name}: expected one of {}", known.join(", "));
                return Err(Error::Config(message));
            }
        }
        stages::STAGES.iter().try_for_each(|stage| stage.check(self))
    }

    /// The section of a stage; its defaults where there is none.
    pub(crate) fn section<C: StageConfig>(&self) -> Result<C> {
        let Some(section) = self.sections.get(C::NAME) else {
            return Ok(C::default());
        };
        serde_json::from_value(section.clone()).map_err(|e| Error::Config(format!("{}: {e}", C::NAME)))
    }

    pub(crate) fn origin(&self) -> Result<Origin<'_>> {
        match (&self.source, &self.networks) {
            (Some(model), None) => Ok(Origin::Model(model)),
            (None, Some(networks)) => Ok(Origin::Networks(networks)),
            _ => Err(Error::Config(
                "either `model` or `networks` says what is trained".into(),
            )),
        }
    }

    /// The family that the networks belong to.
    pub(crate) fn family(&self) -> Result<&'static Family> {
        Ok(match self.origin()? {
            Origin::Model(model) => Family::of(model)?,
            Origin::Networks(_) => &families::STABLE_DIFFUSION_XL,
        })
    }

    /// Is an empty prompt zeros, or what the text encoders make of it?
    pub(crate) fn force_zeros_for_empty_prompt(&self) -> Result<bool> {
        let family = self.family()?.force_zeros_for_empty_prompt;
        Ok(match self.origin()? {
            Origin::Model(model) => {
                let index = model.json("", "model_index.json")?;
                index["force_zeros_for_empty_prompt"].as_bool().unwrap_or(family)
            }
            Origin::Networks(_) => family,
        })
    }

    /// The noise process and what the network predicts: the run's own, or the model's.
    pub(crate) fn scheduler(&self) -> Result<SchedulerConfig> {
        match (&self.scheduler, self.origin()?) {
            (Some(config), _) => {
                let mut config = config.clone();
                let euler = || SchedulerKind::Euler.class_name().to_owned();
                config.class_name.get_or_insert_with(euler);
                Ok(config)
            }
            (None, Origin::Model(model)) => Ok(families::known_scheduler(families::scheduler_config(model)?).0),
            (None, Origin::Networks(_)) => Ok(default_scheduler()),
        }
    }

    pub(crate) fn stage_dir(&self, stage: &str) -> PathBuf {
        self.run_dir.join(stage)
    }

    /// What the run learns from: a person's `pictures`, the scene generator if there is a `world`, else the data set, whose
    /// options `adjust` may change.
    pub(crate) fn pictures(&self, adjust: impl FnOnce(&mut ComposerOptions)) -> Result<Box<dyn PictureSource>> {
        if let Some(own) = &self.pictures {
            return Ok(Box::new(self.own_pictures(own)?));
        }
        if let Some(sources) = &self.world {
            let [height, width] = self.picture_size_px().map(|side| side as usize);
            return rendered(sources, self.seed, [width, height]);
        }
        let dataset = Dataset::open(&self.data_dir)?;
        let mut options = ComposerOptions::for_profile(dataset.manifest.profile, self.seed);
        self.latents.adjust(&mut options);
        adjust(&mut options);
        Ok(Box::new(Composer::new(dataset, options)?))
    }

    /// A person's pictures in the sizes that the model paints.
    pub(crate) fn own_pictures(&self, own: &OwnPicturesConfig) -> Result<OwnPictures> {
        let canvas = self.canvas.clone().unwrap_or_else(|| {
            let side = self.picture_size_px()[0] as usize;
            Canvas {
                side_px: side,
                multiple_px: side,
                sizes: vec![[side; 2]],
            }
        });
        OwnPictures::open(own, &canvas)
    }

    /// Height and width of a whole picture in pixels.
    pub(crate) fn picture_size_px(&self) -> [f32; 2] {
        if let Some(canvas) = &self.canvas {
            let own = self.pictures.as_ref().and_then(|pictures| pictures.resolution_px);
            return [own.unwrap_or(canvas.side_px) as f32; 2];
        }
        let networks = self.networks.as_ref();
        let side = networks.and_then(|networks| networks.vae["sample_size"].as_f64());
        [side.unwrap_or(f64::from(prima_data::SIZE_PX)) as f32; 2]
    }

    /// Width and height in pixels of every picture that the painter learns from; none where that is a model's business.
    pub(crate) fn painted_sizes(&self) -> Vec<[usize; 2]> {
        if self.source.is_some() {
            return Vec::new();
        }
        if self.world.is_some() && self.latents.every_size {
            return prima_data::world::SIZES.map(|(w, h)| [w, h]).to_vec();
        }
        let [height, width] = self.picture_size_px().map(|side| side as usize);
        vec![[width, height]]
    }
}
