//! SIGINT and SIGTERM ask a long command to save and end; the second one ends it at once.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub struct Stop {
    /// Has anybody asked?
    pub asked: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl Stop {
    /// From here on signals are heard.
    pub fn listen() -> Result<Self> {
        let stop = Self {
            asked: Arc::default(),
            signal: Arc::new(AtomicUsize::new(SIGTERM as usize)),
        };
        for signal in [SIGINT, SIGTERM] {
            // They act in this order: the first signal finds the flag not set yet.
            flag::register_conditional_default(signal, stop.asked.clone())
                .and_then(|_| flag::register_usize(signal, stop.signal.clone(), signal as usize))
                .and_then(|_| flag::register(signal, stop.asked.clone()))
                .context("signals cannot be heard")?;
        }
        Ok(stop)
    }

    /// What ends the command then.
    pub fn stopped(&self, what: String) -> Stopped {
        Stopped {
            signal: self.signal.load(Ordering::Relaxed) as i32,
            what,
        }
    }
}

/// A command that did as it was asked, and is not done.
#[derive(Debug, thiserror::Error)]
#[error("stopped by {}: {what}", if *.signal == SIGINT { "SIGINT" } else { "SIGTERM" })]
pub struct Stopped {
    signal: i32,
    what: String,
}

impl Stopped {
    /// As a shell says that a signal ended a command.
    pub fn exit_code(&self) -> u8 {
        128 + self.signal as u8
    }
}
