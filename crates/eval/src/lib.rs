//! prima: eval
