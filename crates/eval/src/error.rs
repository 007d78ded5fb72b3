use std::path::PathBuf;

/// What can go wrong in an evaluation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("{}: class {class:?} has no pictures; write the suite again with `prima data suite`", path.display())]
    EmptyClass { path: PathBuf, class: String },
    #[error(transparent)]
    Checkpoint(#[from] prima_checkpoint::Error),
    #[error(transparent)]
    Picture(#[from] prima_picture::Error),
    #[error(transparent)]
    Pipeline(#[from] prima_pipeline::Error),
}
