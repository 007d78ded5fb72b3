use std::path::{Path, PathBuf};

/// What can go wrong while training.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: {message}", file.display())]
    File { file: PathBuf, message: String },
    #[error("training configuration: {0}")]
    Config(String),
    #[error("training data: {0}")]
    Data(String),
    #[error("model: {0}")]
    Model(String),
    #[error(
        "the loss of {objective} is {loss} at step {step}; lower the learning rate or resume from an earlier state"
    )]
    Diverged { objective: String, step: u64, loss: f32 },
    #[error("several processes: {0}")]
    Launch(String),
    #[error(
        "rank {rank} is gone ({source}), so training stops here too: start all processes again with --resume to go on from \
         the last saved state"
    )]
    PeerLost { rank: usize, source: std::io::Error },
    #[error(transparent)]
    Device(#[from] prima_tensor::DeviceError),
}

impl Error {
    /// Adds the path to an I/O error.
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn file(file: impl AsRef<Path>, message: impl ToString) -> Self {
        Self::File {
            file: file.as_ref().to_path_buf(),
            message: message.to_string(),
        }
    }

    // By value: it is what `map_err` hands over.
    pub(crate) fn config(error: impl std::fmt::Display) -> Self {
        Self::Config(error.to_string())
    }
}

impl From<prima_data::DataError> for Error {
    fn from(error: prima_data::DataError) -> Self {
        Self::Data(error.to_string())
    }
}

impl From<prima_checkpoint::Error> for Error {
    fn from(error: prima_checkpoint::Error) -> Self {
        Self::Model(error.to_string())
    }
}

/// Networks are never interrupted here: their hook always says yes.
impl From<prima_models::Cancelled> for Error {
    fn from(error: prima_models::Cancelled) -> Self {
        Self::Model(error.to_string())
    }
}

impl From<prima_pipeline::Error> for Error {
    fn from(error: prima_pipeline::Error) -> Self {
        match error {
            prima_pipeline::Error::Device(error) => Self::Device(error),
            other => Self::Model(other.to_string()),
        }
    }
}

pub type Result<T> = std::result::Result<T, Error>;
