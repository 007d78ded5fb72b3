//! prima: pipeline
