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
    #[error("{field} is missing")]
    Missing { field: &'static str },
    #[error("{field} has {chars} characters, more than the {most} allowed")]
    TooLong {
        field: &'static str,
        chars: usize,
        most: usize,
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
    #[error(transparent)]
    Picture(#[from] prima_picture::Error),
    /// The model's parts are each right and do not fit together.
    #[error("{model}: {message}")]
    Model { model: String, message: String },
    /// What the networks computed is not a picture: NaN or infinities.
    #[error("{what} NaN or infinite values: {fix}")]
    NotFinite { what: String, fix: &'static str },
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
        self.field().is_some() || matches!(self, Self::Schedule(_))
    }

    /// The request's field at fault, where it is one.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Request { field, .. } | Self::Missing { field } | Self::TooLong { field, .. } => Some(field),
            _ => None,
        }
    }

    /// The same error about the field as the client calls it: the second name where the first is that of the field.
    #[must_use]
    pub fn spelled(mut self, names: &[(&str, &'static str)]) -> Self {
        if let Self::Request { field, .. } | Self::Missing { field } | Self::TooLong { field, .. } = &mut self
            && let Some((_, name)) = names.iter().find(|(ours, _)| ours == field)
        {
            *field = name;
        }
        self
    }
}

impl From<prima_models::Cancelled> for Error {
    fn from(_: prima_models::Cancelled) -> Self {
        Self::Cancelled
    }
}
