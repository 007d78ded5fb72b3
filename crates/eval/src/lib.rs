//! How good a model is, measured: does it paint what the words say?
//!
//! `classes`: prompts naming one object, classified by the nearest class mean in EfficientNet-lite0
//! features of reference renders. `colours`: "a COLOUR OBJECT" prompts, judged by the object's hue.

pub mod classes;
pub mod colours;
mod error;
mod features;
mod quality;
pub mod suite;
mod write_suite;

pub use error::Error;
pub use features::FeatureNet;
pub use quality::{Ceiling, Judge, Quality};
pub use suite::{Class, Suite};
pub use write_suite::SuiteOptions;

/// Told how much is done, of how much.
pub type OnProgress<'a> = &'a mut dyn FnMut(usize, usize);
