//! What goes wrong between machines.

/// Why the gateway or a worker does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no NATS server answers at {url} ({message}); start one with `nats-server -js`, or name it with --nats")]
    Connect { url: String, message: String },
    /// `doing`: what was asked of it.
    #[error("NATS refused {doing}: {message}")]
    Bus { doing: &'static str, message: String },
    #[error("{what} is not what this version of prima writes: {message}")]
    Foreign { what: String, message: String },
    #[error("the worker's own server does not answer: {message}")]
    Server { message: String },
    /// `doing`: what they do not do.
    #[error("the accounts {doing}: {message}")]
    Accounts { doing: String, message: String },
    /// The caller's to mend.
    #[error("the key {name:?}: {message}")]
    Account { name: String, message: String },
    #[error("metrics cannot be counted: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("the gateway's socket failed: {0}")]
    Socket(#[from] std::io::Error),
}

impl Error {
    /// Whether the one who called can mend it.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Account { .. })
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// Says what was asked of NATS when it refused.
pub(crate) fn refused<E: std::fmt::Display>(doing: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Error::Bus {
        doing,
        message: error.to_string(),
    }
}
