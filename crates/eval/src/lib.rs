//! How good a model is, measured: does it paint what the words say?
//!
//! `judge`: a network trained on the scene generator's renders that says what a picture shows; `questions`: what a model is asked
//! to paint, and how often the judge sees it. `suite`: the same for a model that learnt from a data set of drawings, without a
//! trained judge. `distances`: between two sets of pictures, in any space of features. `words`: what the text encoders make of words, by their nearest nouns, without a picture.

mod clip;
pub mod distances;
mod error;
mod features;
mod inception;
pub mod judge;
mod networks;
mod order;
pub mod prompt_list;
pub mod questions;
pub mod report;
mod resize;
pub mod suite;
pub mod words;

pub use clip::ClipNet;
pub use error::Error;
pub use features::{FeatureNet, Features};
pub use inception::{Inception, Patches};
pub use judge::{Judge, Lessons};
pub use networks::{Networks, Seen};
pub use order::{Order, Paint};
pub use resize::Resize;
pub use suite::{Ceiling, Class, Suite, SuiteJudge, SuiteOptions, SuiteQuality};
pub use words::{Nearest, Words, words};

/// Told how much is done, of how much.
pub type OnProgress<'a> = &'a mut dyn FnMut(usize, usize);
