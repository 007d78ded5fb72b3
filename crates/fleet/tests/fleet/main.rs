//! Gateways and workers around a real NATS server.

mod accounts;
mod common;
mod fairness;
mod jobs;
mod sessions;
