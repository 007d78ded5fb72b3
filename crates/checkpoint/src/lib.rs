//! Model files: diffusers folders and single files to tensors and back.

mod error;
pub mod export;
mod random_init;
mod reader;
mod source;
mod tensor_file;

pub use error::Error;
pub use export::{export, write_safetensors};
pub use random_init::RandomInit;
pub use reader::Reader;
pub use source::{Init, ParamSource};
pub use tensor_file::{TensorEntry, TensorFile};
