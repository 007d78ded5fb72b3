//! Data (`prima_data`) to shipped model: the [`stages`] autoencoder, latents, teacher and
//! distill, then [`export::export`]. One configuration file ([`TrainConfig`]) describes a run.
//!
//! Batches and noise are functions of (seed, step), so that a resumed run repeats an
//! uninterrupted one exactly.

pub mod config;
pub mod ema;
mod error;
pub mod export;
pub mod fold_statistics;
pub mod group;
pub mod latent_cache;
mod log;
pub mod loose_captions;
pub mod networks;
pub mod noise_schedule;
pub mod objectives;
pub mod optimizer;
pub mod sample_grid;
pub mod sampling;
pub mod stages;
pub mod state;
pub mod tensorboard;
pub mod tokens;
pub mod trainer;

pub use config::TrainConfig;
pub use error::{Error, Result};
pub use group::{Group, Place};
pub use trainer::{Budget, Session, Summary};
