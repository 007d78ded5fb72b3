//! What `measure` writes and `simulate` reads.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Times {
    /// What was measured where.
    pub about: String,
    /// Of the processors that the workers share.
    pub processors: usize,
    /// A job and a keystroke's first picture at a worker that has nothing else to do, one after the other.
    pub job_ms: Vec<f64>,
    pub keystroke_ms: Vec<f64>,
    /// Gateway and NATS for a job that is accepted.
    pub accept_ms: f64,
    /// What one worker takes for a job beyond the job itself.
    pub store_ms: f64,
    /// Jobs a second of 1, 2 and 3 workers on this machine.
    pub jobs_per_s: Vec<f64>,
    /// A typist's keystrokes through a gateway and one worker: 8 a second, alone and beside queued jobs.
    pub alone_ms: Vec<f64>,
    pub beside_ms: Vec<f64>,
}
