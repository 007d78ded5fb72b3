//! prima: schedulers
