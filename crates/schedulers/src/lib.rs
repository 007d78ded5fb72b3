//! Schedulers as data: a `scheduler_config.json` and a number of steps become a table of coefficients.
//!
//! Every scheduler here, multistep and stochastic ones included, runs in one loop:
//!
//! ```
//! # use prima_schedulers::*;
//! # let model = |input: f64, _timestep: f64| 0.1 * input;
//! # let mut noise = || 0.5;
//! let config = SchedulerConfig::stable_diffusion(SchedulerKind::Euler, ConfigSpacing::Trailing);
//! let schedule = Schedule::new(&config, &ScheduleOptions::steps(4))?;
//! let mut state = State::new(noise() * schedule.init_noise_sigma);
//! for row in &schedule.rows {
//!     let model_output = model(state.sample * row.input_scale, row.timestep);
//!     let fresh = row.needs_noise().then(&mut noise);
//!     let sum = |terms: &[(f64, &f64)]| terms.iter().map(|(weight, value)| weight * *value).sum();
//!     let denoised = state.advance(row, &model_output, fresh.as_ref(), sum); // also the preview
//! }
//! # Ok::<(), prima_schedulers::Error>(())
//! ```
//!
//! The oracle is diffusers 0.42: `goldens/schedulers.json` holds its tables and trajectories.

mod class;
mod config;
mod ddim;
mod ddpm;
mod deis;
mod dpm_solver;
mod dpmpp_multistep;
mod dpmpp_singlestep;
mod edm;
mod error;
mod euler;
mod euler_ancestral;
mod flow;
mod flow_match_euler;
mod heun;
mod kdpm2;
mod lcm;
mod lms;
mod names;
mod noise_schedule;
mod plan;
mod pndm;
mod prediction;
mod rows;
mod schedule;
mod schedule_options;
mod sigma_rules;
mod spacing;
mod support;
mod tcd;
mod unipc;

pub use config::{BetaSchedule, ConfigSpacing, FinalSigmasType, SchedulerConfig};
pub use error::{Error, Result};
pub use names::{SchedulerKind, TimestepSpacing};
pub use noise_schedule::NoiseSchedule;
pub use prediction::PredictionType;
pub use rows::{Combination, HISTORY, Remember, Row, State};
pub use schedule::Schedule;
pub use schedule_options::ScheduleOptions;
