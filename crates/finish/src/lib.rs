//! Finishing pictures: a picture in, a picture out.
//!
//! An [`Upscaler`] enlarges, a [`Segmenter`] cuts out, a [`Stylist`] paints in another's manner. The networks are in `prima_models`; here are their files as people have them, tiles of large pictures,
//! and what lies between a network's values and a picture's bytes.

mod error;
mod progress;
mod segment;
mod style;
pub mod upscale;
mod weights;

pub use error::Error;
pub use progress::Progress;
pub use segment::{Mask, Pointed, Seen, Segmenter, soft_edges};
pub use style::{Styling, Stylist};
pub use upscale::Upscaler;
