//! prima: models
