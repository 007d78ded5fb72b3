//! Model files: diffusers folders and single files to tensors and back.
//!
//! A [`ModelSource`] is a model wherever it lies; it gives the JSONs and a [`Reader`] for each
//! component's weights, whose every read is tracked. [`RandomInit`] stands in for a reader where
//! a network starts untrained, and [`export`](export::export) writes what training made.

mod assembled;
mod clip_vocabulary;
mod embedding;
mod error;
pub mod export;
mod files;
mod finite;
mod float8;
mod gguf;
mod header;
pub mod hub;
mod info;
mod library;
pub mod lora;
mod model_files;
mod model_source;
mod packed;
mod random_init;
mod ranges;
mod reader;
mod single_file;
mod source;
mod tensor_file;
pub mod whole_file;

pub use assembled::Assembled;
pub use embedding::{EmbeddingFile, EmbeddingVectors};
pub use error::Error;
pub use export::{export, write_quantized, write_safetensors, write_safetensors_with};
pub use finite::first_not_finite;
pub use info::{ComponentInfo, ModelInfo, info};
pub use library::{Library, LibraryEntry, Place, models_folder, without_ending};
pub use model_files::files_beside_weights;
pub use model_source::{EmbeddedModel, ModelSource};
pub use packed::{PackedCache, PackedComponent, PackedEntry};
pub use random_init::RandomInit;
pub use ranges::in_range;
pub use reader::{Reader, quantized_bits};
pub use single_file::{ControlNetFile, FileKind, what_is_it};
pub use source::{Init, ParamSource};
pub use tensor_file::{TensorEntry, TensorFile};
