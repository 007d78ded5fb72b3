//! Gateways and workers around a real NATS server.

mod common;
mod jobs;
mod sessions;
