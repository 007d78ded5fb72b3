//! Networks that paint one picture in the manner of another.

pub mod adain;

pub use adain::{AdainConfig, AdainDecoder, VggEncoder, restyled};
