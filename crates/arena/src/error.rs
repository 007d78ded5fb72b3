//! Why there is no arena.

use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} cannot be read", .path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Picture(#[from] prima_picture::Error),
    #[error("an arena wants two models or more with pictures of the same prompts: {0}")]
    TooFew(String),
    #[error("two models are called {0:?}: write NAME=FOLDER to call them something else")]
    SameName(String),
    #[error("the votes in {} cannot be kept or read", .path.display())]
    Votes { path: PathBuf, source: sqlx::Error },
    #[error("the votes cannot be written as a table: {0}")]
    Table(#[from] csv::Error),
    #[error("the page's socket failed: {0}")]
    Socket(#[from] std::io::Error),
}

impl Error {
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::File { path, source }
    }

    pub(crate) fn votes(path: &Path) -> impl FnOnce(sqlx::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Votes { path, source }
    }

    /// Whether the caller asked for what cannot be.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::TooFew(_) | Self::SameName(_))
    }
}
