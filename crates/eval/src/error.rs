use std::path::{Path, PathBuf};

/// What can go wrong in an evaluation. One sentence each.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("{}: class {class:?} has no pictures; write the suite again with `prima eval suite`", path.display())]
    EmptyClass { path: PathBuf, class: String },
    #[error("the suite has no class {0:?}: make it from this data set with `prima eval suite`")]
    UnknownClass(String),
    #[error("language {code}: {noun:?} has names in {known} only")]
    Language { code: String, noun: String, known: String },
    #[error("{}: not a judge; train one with `prima eval judge`", .0.display())]
    NoJudge(PathBuf),
    #[error("the list has no column {name:?}: its columns are {header}")]
    Column { name: String, header: String },
    #[error("the pipeline returned no picture for {0:?}")]
    NoPicture(String),
    #[error("the last text encoder has no pooled output: only SDXL's layout can be asked for words")]
    NoPooledOutput,
    #[error("{0}")]
    Distances(String),
    #[error(transparent)]
    Picture(#[from] prima_picture::Error),
    #[error(transparent)]
    Data(#[from] prima_data::DataError),
    #[error(transparent)]
    Checkpoint(#[from] prima_checkpoint::Error),
    #[error(transparent)]
    Pipeline(#[from] prima_pipeline::Error),
}

impl Error {
    pub(crate) fn file<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Self + use<'_, E> {
        move |error| Self::File {
            path: path.to_owned(),
            reason: error.to_string(),
        }
    }
}
