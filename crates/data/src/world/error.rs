//! What can go wrong with the model pack.

use std::path::PathBuf;

/// Errors of the scene generator.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{file} line {line}: expected the columns of a model, found another number or value of them")]
    Table { file: String, line: usize },
    #[error("model {id}: {what}")]
    Model { id: String, what: String },
    #[error("no kind of picture is called {0:?}: `prima data sheet --list` shows them")]
    Kind(String),
    #[error(
        "the mix of pictures wants parts of at least 0, one of them above, and shares of everyday nouns and of glossy icons from 0 to 1"
    )]
    Mix,
    #[error("no model and no glossy icon is called {0:?}: `prima data sheet --nouns` lists the models' nouns")]
    Noun(String),
    #[error("none of the nouns has a model: pairs and styles want some")]
    NoModels,
    #[error("glossy_share wants icons: say in `packages` where the npm packages lie")]
    NoIcons,
}
