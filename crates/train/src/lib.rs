//! Data (`prima_data`) to shipped model: [`stages`] that train, [`latents`] between them, then [`export`]. One configuration
//! file ([`TrainConfig`]) describes a run; an [objective](objective) is a file in `objectives/` and a line in `stages.rs`.
//!
//! Batches and noise are functions of the seed and of the batch's number, so that a resumed run repeats an uninterrupted
//! one exactly.

mod captions;
mod checksum;
mod config;
mod draws;
mod error;
mod export;
mod fold_statistics;
mod group;
mod latent_cache;
mod latents;
mod networks;
mod noising;
mod objective;
mod objectives;
mod own_pictures;
mod params;
mod picture_source;
mod stage_folder;
pub mod stages;
#[cfg(test)]
mod tests;
mod trained;
mod trainer;

pub use config::TrainConfig;
pub use error::{Error, Result};
pub use export::{Exported, LoraKeys, export, export_lora};
pub use group::{Group, Launch};
pub use latents::latents;
pub use objectives::discard_lora_latents;
pub use trained::text_encoders;
pub use trainer::{AdamW, AdamWConfig, Budget, RunOptions, Summary};
