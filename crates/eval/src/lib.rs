//! How good a model is, measured: does it paint what the words say?
//!
//! `classes`: prompts naming one object, classified by the nearest class mean in EfficientNet-lite0
//! features of reference renders. `colours`: "a COLOUR OBJECT" prompts, judged by the object's hue. `words`: what the text
//! encoders make of words, by their nearest nouns, without a picture.

pub mod classes;
pub mod colours;
pub mod distances;
mod error;
mod features;
mod quality;
pub mod suite;
pub mod words;
mod write_suite;

pub use error::Error;
pub use features::FeatureNet;
pub use quality::{Ceiling, Judge, Quality};
pub use suite::{Class, Suite};
pub use words::{Nearest, Words, words};
pub use write_suite::SuiteOptions;

/// Told how much is done, of how much.
pub type OnProgress<'a> = &'a mut dyn FnMut(usize, usize);
