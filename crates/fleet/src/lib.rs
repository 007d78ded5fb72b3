//! Many users, many machines: `prima gateway` takes requests, `prima worker` paints them, and NATS JetStream lies between.
//!
//! A job is an HTTP request as a client sent it: the gateway queues it, a worker asks its own server (`prima_server`, on a
//! port of its own), and what that answers goes back. So every API is there unchanged, and neither side reads any of them.
//! Live sessions bypass the queue ([`gateway`]'s `live`).

mod accounts;
mod bus;
mod error;
mod gateway;
mod job;
mod lanes;
mod metrics;
mod progress;
mod registry;
pub mod simulation;
mod worker;

pub use accounts::{Accounts, Audited, Key, KeyLimits, Usage, Words};
pub use bus::{Bus, BusOptions};
pub use error::{Error, Result};
pub use gateway::{GatewayOptions, gateway};
pub use job::{Class, Record, State};
pub use lanes::{Place, Turns};
pub use worker::{WorkerOptions, worker};
