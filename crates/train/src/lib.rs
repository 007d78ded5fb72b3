//! prima: train
