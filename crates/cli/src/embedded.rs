//! The model inside the binary: the files of assets/prima-mini at build time.

/// `(path inside the model folder, content)`; empty in a build without assets/prima-mini.
pub static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/embedded_files.rs"));
