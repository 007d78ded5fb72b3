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
    #[error(
        "{} has a state already: go on from it with --resume, give this run another run_dir, or discard the old one with \
         --overwrite",
        dir.display()
    )]
    WouldOverwrite { dir: PathBuf },
    #[error("another run is writing in {}: wait for its end, or give this one another run_dir", dir.display())]
    Held { dir: PathBuf },
    #[error("the state of step {step} could not be saved ({why}); {kept}: mend that and go on with --resume")]
    NotSaved { step: u64, why: String, kept: String },
    #[error("no saved state is whole: {0}; put back a copy, or train the stage again with --overwrite")]
    NoWholeState(String),
    #[error("several processes: {0}")]
    Launch(String),
    #[error(
        "rank {rank} is gone ({source}), so training stops here too: start all processes again with --resume to go on from \
         the last saved state"
    )]
    PeerLost { rank: usize, source: std::io::Error },
    /// Of a file, which it names.
    #[error(transparent)]
    Files(prima_checkpoint::Error),
    #[error(transparent)]
    Device(#[from] prima_tensor::DeviceError),
}

impl Error {
    /// Is it the caller's to mend, rather than a file's or the machine's?
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::WouldOverwrite { .. })
    }

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
        match error {
            prima_checkpoint::Error::Io { .. } => Self::Files(error),
            other => Self::Model(other.to_string()),
        }
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
