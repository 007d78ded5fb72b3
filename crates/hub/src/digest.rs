//! What the hub calls a file by: the SHA-256 of large ones, git's SHA-1 of the others.

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// A hash in the making, of the kind that `etag` is.
pub(crate) enum Digest {
    Sha256(Sha256),
    Git(Sha1),
    /// An etag of another making, as mirrors have them: nothing can be checked by it.
    Unknown,
}

impl Digest {
    /// For a file of `length` bytes.
    pub fn like(etag: &str, length: u64) -> Self {
        let is_hex = etag.bytes().all(|b| b.is_ascii_hexdigit());
        match etag.len() {
            64 if is_hex => Self::Sha256(Sha256::new()),
            40 if is_hex => {
                let mut git = Sha1::new();
                git.update(format!("blob {length}\0"));
                Self::Git(git)
            }
            _ => Self::Unknown,
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Git(hash) => hash.update(bytes),
            Self::Unknown => {}
        }
    }

    /// Its name and its digits; `None` where nothing is known.
    pub fn finish(self) -> Option<(&'static str, String)> {
        match self {
            Self::Sha256(hash) => Some(("SHA-256", format!("{:x}", hash.finalize()))),
            Self::Git(hash) => Some(("git hash", format!("{:x}", hash.finalize()))),
            Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_git_and_sha256sum() {
        let of = |etag: &str| {
            let mut digest = Digest::like(etag, 6);
            digest.update(b"hel");
            digest.update(b"lo\n");
            digest.finish()
        };
        // `printf 'hello\n' | git hash-object --stdin` and `| sha256sum`.
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(of(git), Some(("git hash", git.to_owned())));
        assert_eq!(of(sha256), Some(("SHA-256", sha256.to_owned())));
        assert_eq!(of("b1946ac92492d2347c6235b4d2611184"), None);
    }
}
