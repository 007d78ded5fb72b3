//! A job: the request that a client sent, what became of it, and its answer.

use crate::error::{Error, Result};
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::time::{SystemTime, UNIX_EPOCH};

/// Who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Someone, who sees the answer come.
    Interactive,
    /// Nobody: it is asked about later.
    Batch,
}

impl Class {
    /// The most urgent first.
    pub const ALL: [Self; 2] = [Self::Interactive, Self::Batch];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
        }
    }
}

/// What is queued: all of an HTTP request but its body, which is the message's payload or a stored object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub id: String,
    /// With its query.
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// The object that holds the body, where it is too large for a message.
    pub stored_body: Option<String>,
    /// Milliseconds since 1970 after which nobody wants the answer.
    pub deadline_ms: Option<u64>,
}

/// What became of a job; the last four do not change any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    Queued,
    Running {
        worker: String,
    },
    /// Answered, with whatever status.
    Done {
        status: u16,
        /// The object that holds the answer.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        answer: String,
    },
    /// Given up after [`MAX_TRIES`](crate::worker::MAX_TRIES) tries.
    Failed {
        reason: String,
    },
    Cancelled,
    Expired,
}

impl State {
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Queued | Self::Running { .. })
    }

    /// As it is written.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running { .. } => "running",
            Self::Done { .. } => "done",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// A job as it is asked about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    /// Whose it is.
    pub account: String,
    pub class: Class,
    /// The model that was named, as a subject's token; `any`.
    pub model: String,
    /// Of the request.
    pub path: String,
    #[serde(flatten)]
    pub state: State,
    /// Workers that began it.
    pub tries: u64,
    pub created_ms: u64,
    pub changed_ms: u64,
}

impl Record {
    pub(crate) fn read(key: &str, bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|e| Error::Foreign {
            what: format!("job {key}"),
            message: e.to_string(),
        })
    }

    pub(crate) fn written(&self) -> bytes::Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// It ended without a picture, and without work for one that its client did not want any more.
    pub(crate) fn was_for_nothing(&self) -> bool {
        match self.state {
            State::Done { status, .. } => status >= 400,
            State::Cancelled => self.tries == 0,
            State::Failed { .. } | State::Expired => true,
            State::Queued | State::Running { .. } => false,
        }
    }

    /// The same in another state, now.
    pub(crate) fn turned(&self, state: State) -> Self {
        Self {
            state,
            changed_ms: now_ms(),
            ..self.clone()
        }
    }
}

/// An answer's status and headers; its body follows in the stored object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AnswerHead {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

/// Both in one object: the head in JSON, a line feed, the body.
pub(crate) fn packed_answer(head: &AnswerHead, body: &[u8]) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(head).unwrap_or_default();
    bytes.push(b'\n');
    bytes.extend_from_slice(body);
    bytes
}

pub(crate) fn unpacked_answer(name: &str, bytes: &[u8]) -> Result<(AnswerHead, bytes::Bytes)> {
    let foreign = |message: String| Error::Foreign {
        what: format!("answer {name}"),
        message,
    };
    let end = bytes.iter().position(|&b| b == b'\n');
    let end = end.ok_or_else(|| foreign("it has no head".into()))?;
    let head = serde_json::from_slice(&bytes[..end]).map_err(|e| foreign(e.to_string()))?;
    Ok((head, bytes::Bytes::copy_from_slice(&bytes[end + 1..])))
}

/// Headers of HTTP that belong to one connection, or that each side writes itself.
pub(crate) fn travels(name: &str) -> bool {
    const OWN: [&str; 12] = [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
        "authorization",
        "origin",
    ];
    !OWN.contains(&name.to_ascii_lowercase().as_str())
}

/// What of a request's or an answer's headers goes on to the other side, as text.
pub(crate) fn kept_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let kept = headers.iter().filter(|(name, _)| travels(name.as_str()));
    kept.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect()
}

/// 128 bits in hexadecimal: ids of jobs and accounts, and what spreads clients over workers in the same way on every gateway.
pub(crate) fn digest(text: &str) -> String {
    let mut hex = format!("{:x}", Sha256::digest(text));
    hex.truncate(32);
    hex
}

/// A name as one token of a subject or key: small letters, digits, `-` and `_`; never empty.
pub(crate) fn token(name: &str) -> String {
    let mut out: String = name.to_lowercase();
    out = out
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
        .collect();
    out.truncate(80);
    if out.is_empty() { "_".into() } else { out }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |t| t.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_back_as_it_was_packed() {
        let head = AnswerHead {
            status: 201,
            headers: vec![("content-type".into(), "image/png".into())],
        };
        let body = b"line\nfeed\0and zero";
        let (read, rest) = unpacked_answer("x", &packed_answer(&head, body)).unwrap();
        assert_eq!((read.status, read.headers, &rest[..]), (201, head.headers, &body[..]));
        assert!(unpacked_answer("x", b"{}").is_err());
    }

    #[test]
    fn a_model_s_name_becomes_one_token() {
        assert_eq!(token("stabilityai/SDXL-Turbo 1.0"), "stabilityai_sdxl-turbo_1_0");
        assert_eq!(token(""), "_");
    }
}
