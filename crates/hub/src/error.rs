//! Why a model was not pulled.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{text:?} is no id of the hub: use org/name, org/name@revision, or org/name/file.safetensors")]
    Id { text: String },
    #[error("nobody says where the hub's cache is: set HF_HOME")]
    NoHome,
    #[error("HF_HUB_OFFLINE forbids to ask the hub for {what}: unset it to pull")]
    Offline { what: String },
    #[error(
        "{repository} is gated: accept its terms at {endpoint}/{repository}, make a token at {endpoint}/settings/tokens, and put it into HF_TOKEN or {}",
        token_file.display()
    )]
    Gated {
        repository: String,
        endpoint: String,
        token_file: PathBuf,
    },
    #[error(
        "the hub does not give {repository} to the owner of this token: accept its terms at {endpoint}/{repository}, or wait until the request is granted"
    )]
    NotGranted { repository: String, endpoint: String },
    #[error(
        "{endpoint} does not know the token that was sent: make another at {endpoint}/settings/tokens for HF_TOKEN"
    )]
    Token { endpoint: String },
    #[error("{endpoint} has no {repository}: is it spelt right? A private one needs a token in HF_TOKEN")]
    NoRepository { repository: String, endpoint: String },
    #[error("{repository} has no revision {revision:?}: use a branch, a tag or a commit of it")]
    NoRevision { repository: String, revision: String },
    #[error("{repository} has no {file}{near}")]
    NoFile {
        repository: String,
        file: String,
        near: String,
    },
    #[error(
        "{repository} has no safetensors of {component}, only what can run code when opened: look for a conversion of it"
    )]
    OnlyPickles { repository: String, component: String },
    #[error(
        "{repository} is no model that prima knows: it has neither model_index.json with a UNet, nor one file of weights{files}"
    )]
    NotAModel { repository: String, files: String },
    #[error("{repository} has several files of weights: name one, such as {first} (there are {all})")]
    Several {
        repository: String,
        first: String,
        all: String,
    },
    #[error("{file} has the {kind} {found}, and the hub says {expected}: it is removed; pull it again")]
    Checksum {
        file: String,
        kind: &'static str,
        found: String,
        expected: String,
    },
    #[error("{file} has {found} bytes, and the hub says {expected}: it is removed; pull it again")]
    Size { file: String, found: u64, expected: u64 },
    #[error("{needed} MB are needed and {} has {free} MB free: make room, or set HF_HOME to another disk", folder.display())]
    NoRoom { needed: u64, free: u64, folder: PathBuf },
    #[error("{what} was interrupted after {bytes} bytes, which are kept: pull again to go on ({message})")]
    Interrupted { what: String, bytes: u64, message: String },
    #[error("{endpoint} cannot be reached: {message}")]
    Network { endpoint: String, message: String },
    #[error("{endpoint} answered {status} about {what}")]
    Status {
        endpoint: String,
        what: String,
        status: u16,
    },
    #[error("{endpoint} says something of {what} that is not understood: {message}")]
    Answer {
        endpoint: String,
        what: String,
        message: String,
    },
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Whether the caller can mend it: exit code 2 of the command line.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Id { .. }
                | Self::Offline { .. }
                | Self::Several { .. }
                | Self::NoFile { .. }
                | Self::NoRevision { .. }
        )
    }
}
