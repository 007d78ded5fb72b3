/// What can be wrong with a model's files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{file}: {message}")]
    File { file: String, message: String },
}
