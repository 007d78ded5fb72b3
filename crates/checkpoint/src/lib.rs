//! Model files: diffusers folders and single files to tensors and back.

mod error;
mod source;

pub use error::Error;
pub use source::{Init, ParamSource};
