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
    #[error("the gateway's socket failed: {0}")]
    Socket(#[from] std::io::Error),
}

pub type Result<T> = std::result::Result<T, Error>;

/// Says what was asked of NATS when it refused.
pub(crate) fn refused<E: std::fmt::Display>(doing: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Error::Bus {
        doing,
        message: error.to_string(),
    }
}
