//! Prompts and pictures in, pictures out: text-to-image and image-to-image on a model's parts.
//!
//! ```no_run
//! # use prima_pipeline::*;
//! # use std::ops::ControlFlow;
//! let model = ModelSource::open("path/to/a/diffusers/folder")?;
//! let pipeline = Pipeline::load(&model, &LoadOptions::default())?;
//! let request = Request { prompt: "a red apple".into(), seed: 1, ..Request::default() };
//! let response = pipeline.paint(&request, &mut |_| ControlFlow::Continue(()))?;
//! assert_eq!(response.pictures.len(), 1);
//! # Ok::<(), Error>(())
//! ```

mod adapters;
mod blend;
mod canvas;
mod conditioning;
mod control;
mod controlnets;
mod embeddings;
mod error;
pub mod families;
mod guidance;
mod host_memory;
mod image_to_image;
pub mod known_models;
mod known_words;
mod load;
mod mask;
mod model_card;
mod needs;
mod noise;
mod packed_weights;
mod picture_tensors;
mod prompts;
mod quantize;
mod refiner;
mod region;
mod repeat;
mod request;
mod request_builder;
mod response;
mod sampling;
mod settings;
mod steering;
mod steps;
mod text_to_image;
mod vae;
mod weight_files;

pub use adapters::{LoraChoice, LoraEntry, LoraHash, LoraOptions, UsedLora, merge};
pub use blend::Blend;
pub use conditioning::{Conditioning, Reading, TextEncoder, TextEncoders};
pub use control::{Control, MAX_CONTROLS, Preprocessor};
pub use controlnets::ControlNetOptions;
pub use embeddings::{EmbeddingEntry, EmbeddingOptions};
pub use error::Error;
pub use families::Family;
pub use guidance::classifier_free;
pub use known_words::{KnownWords, UnknownWord};
pub use load::{LoadOptions, Loaded, OnLoaded, Parts};
pub use mask::{Mask, MaskFill};
pub use model_card::{Defaults, ModelCard, WordGroup};
pub use needs::{Needs, check_room, weight_bytes};
pub use noise::Rng;
pub use picture_tensors::{picture_to_tensor, pictures_of_tensor};
pub use prima_checkpoint::{Library, ModelSource, PackedCache, without_ending};
pub use prima_models::Vae;
pub use prima_picture::{Gray, Parameters, Picture};
pub use prima_schedulers::{PredictionType, ScheduleOptions, SchedulerKind, TimestepSpacing};
pub use prima_tensor::DType;
pub use prompts::{Piece, PromptSyntax, UnknownSyntax, WeightedPrompt, prompt_texts};
pub use quantize::{LayerReport, Quantization, QuantizeStage, quantize};
pub use region::{MAX_REGIONS, Region};
pub use repeat::Medians;
pub use request::{InitImage, MAX_AREA_PX, MAX_IMAGES, MAX_SIDE_PX, MAX_STEPS, Progress, Request, RequestLimits};
pub use request_builder::{RequestBuilder, Spelling, parse_size, scheduler_named, seed};
pub use response::{Response, Timings};
pub use sampling::{Sampling, sample};

use adapters::Loras;
use controlnets::ControlNets;
use packed_weights::PackedWeights;

/// A loaded model, ready to paint.
pub struct Pipeline {
    parts: Parts,
    defaults: Defaults,
    /// Without what the model is known by.
    own_defaults: Defaults,
    packed: PackedWeights,
    loras: Loras,
    refiner: Option<Box<Pipeline>>,
    controlnets: ControlNets,
    embeddings: Vec<EmbeddingEntry>,
    skipped_embeddings: Vec<String>,
}

impl Pipeline {
    /// What the model is called.
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// What a request gets where it leaves a choice to the model.
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Keeps the weights as they are packed now in the cache that the model was loaded with, for the next start: after a first
    /// picture, so that they are what pictures of its size need. How many bytes that were: none where all are there, or there is
    /// no cache.
    pub fn store_packed(&self) -> Result<u64, Error> {
        let refiner = self.refiner.as_ref().map_or(Ok(0), |refiner| refiner.store_packed())?;
        Ok(self.packed.store()? + refiner)
    }

    /// The parts back, for instance to go on training.
    pub fn into_parts(self) -> Parts {
        self.parts
    }

    /// Names of ControlNets that requests may ask for.
    pub fn controlnets(&self) -> Vec<String> {
        self.controlnets.list().into_iter().map(|(name, _)| name).collect()
    }

    /// Words that were learnt from files.
    pub fn embeddings(&self) -> &[EmbeddingEntry] {
        &self.embeddings
    }

    /// Files in the folder of embeddings that are for other models.
    pub fn skipped_embeddings(&self) -> &[String] {
        &self.skipped_embeddings
    }

    /// Width of the UNet's guidance input, if it has one (LCM).
    pub fn guidance_embedding_dim(&self) -> Option<usize> {
        self.parts.unet.config().time_cond_proj_dim
    }

    /// Sides are multiples of this many pixels: diffusers' 8, or the autoencoder's factor if larger.
    pub fn size_multiple(&self) -> usize {
        self.parts.vae.scale_factor().max(8)
    }
}
