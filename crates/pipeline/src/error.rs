//! What can go wrong between a request and its pictures.

/// One sentence each: the thing, and the fix.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value of the request that no model can follow.
    #[error("{field} {value} is not possible: {fix}")]
    Request {
        field: &'static str,
        value: String,
        fix: String,
    },
    /// The schedule that the request asks for does not exist.
    #[error(transparent)]
    Schedule(prima_schedulers::Error),
    /// The model's own scheduler config is at fault.
    #[error("{file}: {source}")]
    SchedulerConfig {
        file: String,
        source: prima_schedulers::Error,
    },
    #[error(transparent)]
    Checkpoint(#[from] prima_checkpoint::Error),
    /// The model's parts are each right and do not fit together.
    #[error("{model}: {message}")]
    Model { model: String, message: String },
    /// The GPU cannot do it; what the request had allocated there is free again.
    #[error(transparent)]
    Device(#[from] prima_tensor::DeviceError),
    /// Found out before anything was loaded.
    #[error("{model} takes about {needs}: {fix}")]
    NoRoom { model: String, needs: String, fix: String },
    #[error("cancelled")]
    Cancelled,
    /// A defect of prima, caught so that it ends one request only.
    #[error("this request met a defect of prima: {message}")]
    Defect { message: String },
}

impl Error {
    pub(crate) fn request(field: &'static str, value: impl std::fmt::Display, fix: impl Into<String>) -> Self {
        Self::Request {
            field,
            value: value.to_string(),
            fix: fix.into(),
        }
    }

    /// Whether the request is at fault, rather than a file or the machine.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Request { .. } | Self::Schedule(_))
    }
}

impl From<prima_models::Cancelled> for Error {
    fn from(_: prima_models::Cancelled) -> Self {
        Self::Cancelled
    }
}
