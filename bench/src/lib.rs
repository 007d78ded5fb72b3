//! What the programs of `src/bin` share.

pub mod typist;

use anyhow::Result;
use prima_pipeline::ModelSource;
use std::path::{Path, PathBuf};

/// The model inside the binary.
pub fn shipped_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/prima-mini")
}

/// A model folder, or the shipped one.
pub fn model(folder: Option<&Path>) -> Result<ModelSource> {
    Ok(match folder {
        Some(folder) => ModelSource::open(folder)?,
        None => ModelSource::open(shipped_model())?,
    })
}

/// Two threads for sockets, as `prima serve` has.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}
