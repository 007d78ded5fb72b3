//! Schedulers as data: a `scheduler_config.json` and a number of steps become a table of coefficients.
//!
//! Every scheduler here, multistep DPM++ 2M included, runs in one loop:
//!
//! ```
//! # use prima_schedulers::*;
//! # let model = |input: f64, _timestep: f64| 0.1 * input;
//! # let mut noise = || 0.5;
//! let config = SchedulerConfig::stable_diffusion(SchedulerKind::Euler, ConfigSpacing::Trailing);
//! let schedule = Schedule::new(&config, &ScheduleOptions::steps(4))?;
//! let mut sample = noise() * schedule.init_noise_sigma;
//! let mut previous_denoised = 0.0;
//! for step in &schedule.steps {
//!     let model_output = model(sample * step.input_scale, step.timestep);
//!     let denoised = sample * step.denoised.0 + model_output * step.denoised.1; // also the preview
//!     sample = sample * step.sample
//!         + model_output * step.model_output
//!         + noise() * step.noise
//!         + previous_denoised * step.previous_denoised;
//!     previous_denoised = denoised;
//! }
//! # Ok::<(), prima_schedulers::Error>(())
//! ```
//!
//! The oracle is diffusers 0.42: `goldens/schedulers.json` holds its tables and trajectories.

mod config;
mod ddim;
mod dpmpp_2m;
mod error;
mod euler;
mod euler_ancestral;
mod lcm;
mod names;
mod noise_schedule;
mod prediction;
mod schedule;
mod spacing;
mod tcd;

pub use config::{ConfigSpacing, FinalSigmasType, SchedulerConfig};
pub use error::{Error, Result};
pub use names::SchedulerKind;
pub use noise_schedule::{BetaSchedule, NoiseSchedule};
pub use prediction::PredictionType;
pub use schedule::{Schedule, ScheduleOptions, StepCoeffs};
pub use spacing::TimestepSpacing;
