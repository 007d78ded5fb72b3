//! A model's files to a pipeline.

use crate::adapters::{LoraOptions, Loras};
use crate::conditioning::TextEncoders;
use crate::controlnets::{ControlNetOptions, ControlNets};
use crate::embeddings::EmbeddingOptions;
use crate::families::{self, Family, Replaced, Weights};
use crate::known_models::Recognised;
use crate::model_card::{Defaults, ModelCard, Traits};
use crate::packed_weights::{Loading, NamedParams, PackedWeights};
use crate::{Error, Pipeline, Vae};
use prima_checkpoint::{ModelSource, PackedCache};
use prima_models::{OneOrMany, Unet2dCondition};
use prima_schedulers::{PredictionType, SchedulerConfig};
use prima_tensor::DType;

/// How a model is loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Storage type of the weights: f32, or bf16 for the networks' matrices, convolutions and tables of embeddings. The
    /// first two are then multiplied in bf16.
    pub dtype: DType,
    /// Where packed weights are kept from one start to the next; for the CPU.
    pub cache: Option<PackedCache>,
    /// Most bytes of memory that the model and a picture may take, whatever the machine has.
    pub max_memory: Option<usize>,
    /// Bytes of weights that stay in memory, while all others are read from the cache again and again. What
    /// [`check_room`](crate::check_room) finds out; `None` for all of them.
    pub resident: Option<usize>,
    pub loras: LoraOptions,
    pub embeddings: EmbeddingOptions,
    /// What the network predicts, where neither its config nor its file says what is true.
    pub prediction_type: Option<PredictionType>,
    /// Whether its noise was rescaled to end without signal (`rescale_betas_zero_snr`), where its config does not say.
    pub zero_snr: bool,
    /// A model that takes the last steps of requests that ask for it.
    pub refiner: Option<ModelSource>,
    pub controlnets: ControlNetOptions,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self::of(DType::F32)
    }
}

impl LoadOptions {
    /// Weights of this type, read from the model's own files and kept in memory.
    pub fn of(dtype: DType) -> Self {
        Self {
            dtype,
            cache: None,
            max_memory: None,
            resident: None,
            loras: LoraOptions::default(),
            embeddings: EmbeddingOptions::default(),
            prediction_type: None,
            zero_snr: false,
            refiner: None,
            controlnets: ControlNetOptions::default(),
        }
    }
}

/// How far a component is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub component: &'static str,
    /// Of its files' tensors.
    pub bytes: usize,
    pub total: usize,
}

/// Hears of it, on any thread.
pub type OnLoaded<'a> = &'a (dyn Fn(Loaded) + Sync);

/// What a pipeline is made of.
pub struct Parts {
    pub name: String,
    pub family: &'static Family,
    pub text_encoders: TextEncoders,
    pub unet: Unet2dCondition,
    pub vae: Vae,
    pub scheduler_config: SchedulerConfig,
    /// The class that the model's own config names, where it is one that prima does not have: `scheduler_config` names
    /// another then.
    pub replaced_scheduler: Option<Replaced>,
    /// What the model is by its name, where its configs leave that open.
    pub known: Option<Recognised>,
    pub card: ModelCard,
    /// `force_zeros_for_empty_prompt` of `model_index.json`, else the family's.
    pub force_zeros_for_empty_prompt: bool,
    /// Parameters of each component by their keys, for LoRAs; none where there are to be none.
    pub components: Vec<(String, NamedParams)>,
}

impl Parts {
    /// Reads every component, each tensor once.
    pub fn load(source: &ModelSource, options: &LoadOptions) -> Result<Self, Error> {
        Ok(Self::load_packed(source, options, &|_| {})?.0)
    }

    fn load_packed(
        source: &ModelSource,
        options: &LoadOptions,
        on_loaded: OnLoaded,
    ) -> Result<(Self, PackedWeights), Error> {
        if options.dtype == DType::F16 {
            return Err(Error::request("dtype", "f16", "use f32 or bf16".to_owned()));
        }
        let loading = Loading::new(options, on_loaded);
        let mut parts = Self::make(source, Weights::Read(&loading))?;
        let (packed, components) = loading.finish();
        parts.components = components;
        let config = &mut parts.scheduler_config;
        config.prediction_type = options.prediction_type.or(config.prediction_type);
        if options.zero_snr {
            config.rescale_betas_zero_snr = Some(true);
        }
        Ok((parts, packed))
    }

    /// Whether the UNet is one of inpainting, which reads a mask and a picture beside the noisy latents.
    pub fn reads_picture(&self) -> bool {
        self.unet.config().in_channels == 2 * self.vae.latent_channels() + 1
    }

    /// Whether it is SDXL's refiner, which finishes pictures and is told how beautiful they are.
    pub fn is_refiner(&self) -> bool {
        let count = self
            .text_encoders
            .pooled_width()
            .and_then(|pooled| self.unet.config().time_id_count(pooled));
        count == Some(REFINERS_TIME_IDS)
    }

    /// The networks of a model without their weights, and without words unless a prompt will be read: to find out what they
    /// need.
    pub(crate) fn outline(source: &ModelSource, words: bool) -> Result<Self, Error> {
        Self::make(source, Weights::Absent { words })
    }

    /// In bf16, with every parameter by its key.
    pub(crate) fn listed(source: &ModelSource, listing: &families::Listing) -> Result<Self, Error> {
        let options = LoadOptions {
            dtype: DType::BF16,
            ..LoadOptions::default()
        };
        Self::make(
            source,
            Weights::Listed(&Loading::new(&options, &|_| {}).exactly(), listing),
        )
    }

    fn make(source: &ModelSource, weights: Weights) -> Result<Self, Error> {
        let index = source.json("", "model_index.json")?;
        let family = Family::of_index(source, &index)?;
        let card = model_card(source)?;
        let text_encoders = families::text_encoders(source, family, weights)?;
        let unet = families::unet(source, weights)?;
        let vae = families::vae(source, weights)?;
        let (scheduler_config, replaced_scheduler) = families::known_scheduler(families::scheduler_config(source)?);
        let forces_zeros = index["force_zeros_for_empty_prompt"].as_bool();
        Ok(Self {
            name: card.name.clone().unwrap_or_else(|| source.unet_name()),
            family,
            text_encoders,
            unet,
            vae,
            scheduler_config,
            replaced_scheduler,
            known: Recognised::checkpoint(&source.unet_name(), source.title().as_deref()),
            card,
            force_zeros_for_empty_prompt: forces_zeros.unwrap_or(family.force_zeros_for_empty_prompt),
            components: Vec::new(),
        })
    }
}

/// The model's `prima.json`, if it has one.
fn model_card(source: &ModelSource) -> Result<ModelCard, Error> {
    if !source.exists("prima.json") {
        return Ok(ModelCard::default());
    }
    let text = families::text(source, "", "prima.json")?;
    ModelCard::parse(&text, &families::path(source, "", "prima.json"))
}

impl Pipeline {
    /// Reads a model: a diffusers folder, a single file, or the embedded one.
    pub fn load(source: &ModelSource, options: &LoadOptions) -> Result<Self, Error> {
        Self::load_telling(source, options, &|_| {})
    }

    /// As [`load`](Self::load), and tells how far it is.
    pub fn load_telling(source: &ModelSource, options: &LoadOptions, on_loaded: OnLoaded) -> Result<Self, Error> {
        let (mut parts, packed) = Parts::load_packed(source, options, on_loaded)?;
        let (embeddings, skipped_embeddings) = parts.text_encoders.learn(&options.embeddings)?;
        let pipeline = Self {
            packed,
            embeddings,
            skipped_embeddings,
            controlnets: ControlNets::new(&options.controlnets, options.dtype)?,
            ..Self::with_loras_of(parts, &options.loras)?
        };
        match &options.refiner {
            Some(refiner) => pipeline.with_refiner(Self::load_refiner(refiner, options, on_loaded)?),
            None => Ok(pipeline),
        }
    }

    /// A model by itself, without what belongs to the one that it refines.
    fn load_refiner(source: &ModelSource, options: &LoadOptions, on_loaded: OnLoaded) -> Result<Self, Error> {
        let options = LoadOptions {
            cache: options.cache.clone(),
            max_memory: options.max_memory,
            resident: options.resident,
            ..LoadOptions::of(options.dtype)
        };
        Self::load_telling(source, &options, on_loaded)
    }

    /// The same with LoRAs.
    pub fn with_loras_of(parts: Parts, loras: &LoraOptions) -> Result<Self, Error> {
        Self::new(parts)?.with_loras(loras)
    }

    /// A pipeline of parts that fit together.
    pub fn new(mut parts: Parts) -> Result<Self, Error> {
        check_fit(&parts).map_err(|message| Error::Model {
            model: parts.name.clone(),
            message,
        })?;
        let config = parts.unet.config();
        let scheduler = parts.scheduler_config.kind();
        let sample_size = match &config.sample_size {
            Some(OneOrMany::One(side)) => Some(*side),
            Some(OneOrMany::Many(sides)) => sides.first().copied(),
            None => None,
        };
        let latent_size = sample_size.unwrap_or(parts.family.sample_size);
        let traits = Traits {
            family: parts.family,
            scheduler: scheduler.map_err(|source| Error::SchedulerConfig {
                file: format!("scheduler_config.json of {}", parts.name),
                source,
            })?,
            spacing: parts.scheduler_config.timestep_spacing.map(Into::into),
            predicts_sample: parts.scheduler_config.prediction_type() == PredictionType::Sample,
            guidance_embedding: config.time_cond_proj_dim.is_some(),
            is_edm: parts.scheduler_config.is_edm(),
            is_sdxs: config.is_sdxs(),
            native_px: latent_size * parts.vae.scale_factor(),
        };
        let own_defaults = Defaults::new(&parts.card, traits);
        // A name is a hint where nothing better says how the model was distilled.
        parts.known = parts.known.take_if(|_| !own_defaults.few_steps);
        let defaults = match &parts.known {
            Some(known) => known.defaults(own_defaults.clone()),
            None => own_defaults.clone(),
        };
        Ok(Self {
            defaults,
            own_defaults,
            parts,
            packed: PackedWeights::default(),
            loras: Loras::default(),
            refiner: None,
            controlnets: ControlNets::default(),
            embeddings: Vec::new(),
            skipped_embeddings: Vec::new(),
        })
    }
}

/// Of SDXL's refiner: an aesthetic score stands in the place of the target size.
const REFINERS_TIME_IDS: usize = 5;

/// The widths that one component hands to the next.
fn check_fit(parts: &Parts) -> Result<(), String> {
    let config = parts.unet.config();
    let width = parts.text_encoders.width();
    let context = match &config.cross_attention_dim {
        OneOrMany::One(dim) => vec![*dim],
        OneOrMany::Many(dims) => dims.clone(),
    };
    if context.iter().any(|&dim| dim != width) {
        return Err(format!(
            "the text encoders give {width} channels, the UNet's cross_attention_dim is {context:?}"
        ));
    }
    let latent_channels = parts.vae.latent_channels();
    let takes = [latent_channels, 2 * latent_channels + 1];
    if !takes.contains(&config.in_channels) || config.out_channels != latent_channels {
        return Err(format!(
            "the VAE has {latent_channels} latent channels, the UNet takes {} and gives {}",
            config.in_channels, config.out_channels
        ));
    }
    if config.addition_embed_type.is_some() {
        let Some(pooled) = parts.text_encoders.pooled_width() else {
            return Err("the UNet wants a pooled prompt, and the last text encoder has no projection".to_owned());
        };
        let found = pooled + 6 * config.addition_time_embed_dim.unwrap_or(0);
        let expected = config.projection_class_embeddings_input_dim.unwrap_or(0);
        if found != expected && config.time_id_count(pooled) != Some(REFINERS_TIME_IDS) {
            return Err(format!(
                "pooled prompt and time_ids have {found} channels, projection_class_embeddings_input_dim is {expected}"
            ));
        }
    }
    Ok(())
}
