//! Finishing pictures: a picture in, a picture out.
//!
//! An [`Upscaler`] enlarges. The networks are in `prima_models`; here are their files as people have them, tiles of large pictures,
//! and what lies between a network's values and a picture's bytes.

mod error;
mod progress;
pub mod upscale;
mod weights;

pub use error::Error;
pub use progress::Progress;
pub use upscale::Upscaler;
