//! One file: resumed, checked, in its place.

use crate::Error;
use crate::cache::Repository;
use crate::client::{Client, FileFacts};
use crate::digest::Digest;
use crate::event::Event;
use prima_checkpoint::hub::Id;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::time::Duration;
use ureq::http::{Response, header};
use ureq::{Body, http};

/// A file of a repository and what the hub says of it.
pub(crate) struct Item<'a> {
    pub id: &'a Id,
    pub commit: &'a str,
    pub name: &'a str,
    pub facts: &'a FileFacts,
}

/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

impl Item<'_> {
    /// Gets the blob, if it is not there; how many bytes came.
    pub fn fetch(&self, client: &Client, repository: &Repository, tell: &mut dyn FnMut(Event)) -> Result<u64, Error> {
        let blob = repository.blob(&self.facts.etag);
        let _lock = repository.lock(&self.facts.etag)?;
        if blob.metadata().is_ok_and(|there| there.len() == self.facts.size) {
            tell(Event::Bytes { bytes: self.facts.size });
            return Ok(0);
        }
        let part = repository.part(&self.facts.etag);
        let mut file = Part::open(&part, self.facts)?;
        let had = file.length;
        tell(Event::Bytes { bytes: had });
        self.complete(client, &mut file, tell)?;
        let came = file.length - had.min(file.length);
        file.check(&format!("{}/{}", self.id.repository, self.name), self.facts)?;
        fs::rename(&part, &blob).map_err(Error::io("replace", &blob))?;
        Ok(came)
    }

    /// Asks for what is missing until it is there, or nothing new has come for several tries.
    fn complete(&self, client: &Client, file: &mut Part, tell: &mut dyn FnMut(Event)) -> Result<(), Error> {
        let mut in_vain = 0;
        while file.length < self.facts.size {
            let before = file.length;
            let message = match client.body(self.id, self.commit, self.name, file.length) {
                Ok(response) => match self.append(client, response, file, tell)? {
                    Ok(()) => continue,
                    Err(message) => message,
                },
                Err(error) => error.to_string(),
            };
            in_vain = if file.length > before { 0 } else { in_vain + 1 };
            if in_vain >= client.settings.tries {
                return Err(Error::Interrupted {
                    what: format!("{}/{}", self.id.repository, self.name),
                    bytes: file.length,
                    message,
                });
            }
            let wait = client.settings.first_wait * 2u32.pow(in_vain.min(8));
            std::thread::sleep(wait.min(LONGEST_WAIT));
        }
        Ok(())
    }

    /// Writes what an answer brings. The inner error is one that may pass.
    fn append(
        &self,
        client: &Client,
        response: Response<Body>,
        file: &mut Part,
        tell: &mut dyn FnMut(Event),
    ) -> Result<Result<(), String>, Error> {
        match response.status().as_u16() {
            206 if begins_at(&response) == Some(file.length) => {}
            // All of it, from a place that does not resume.
            200 | 206 | 416 if file.length > 0 => {
                tell(Event::Again { bytes: file.length });
                file.restart(self.facts)?;
                if response.status() != 200 {
                    return Ok(Err("the server does not resume".to_owned()));
                }
            }
            200 => {}
            status @ (408 | 429 | 500..=599) => return Ok(Err(format!("the server answers {status}"))),
            _ => return Err(client.refusal(&response, self.id, &format!("{}/{}", self.id.repository, self.name))),
        }
        // No more is written than the hub said there is.
        let mut body = response.into_body().into_reader().take(self.facts.size - file.length);
        let mut buffer = vec![0; 1 << 18];
        loop {
            match body.read(&mut buffer) {
                Ok(0) if file.length < self.facts.size => return Ok(Err("the connection ended early".to_owned())),
                Ok(0) => return Ok(Ok(())),
                Ok(read) => {
                    file.write(&buffer[..read])?;
                    tell(Event::Bytes { bytes: read as u64 });
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Ok(Err(error.to_string())),
            }
        }
    }
}

/// The first byte of a partial answer.
fn begins_at(response: &http::Response<Body>) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// What there is of a file, and the hash of that.
struct Part<'a> {
    path: &'a Path,
    file: File,
    length: u64,
    digest: Digest,
}

impl<'a> Part<'a> {
    fn open(path: &'a Path, facts: &FileFacts) -> Result<Self, Error> {
        let file = File::options().read(true).append(true).create(true).open(path);
        let mut part = Self {
            file: file.map_err(Error::io("write", path))?,
            path,
            length: 0,
            digest: Digest::like(&facts.etag, facts.size),
        };
        let mut buffer = vec![0; 1 << 18];
        loop {
            let read = part.file.read(&mut buffer).map_err(Error::io("read", path))?;
            if read == 0 {
                break;
            }
            part.digest.update(&buffer[..read]);
            part.length += read as u64;
        }
        if part.length > facts.size {
            part.restart(facts)?;
        }
        Ok(part)
    }

    fn restart(&mut self, facts: &FileFacts) -> Result<(), Error> {
        self.file.set_len(0).map_err(Error::io("write", self.path))?;
        self.length = 0;
        self.digest = Digest::like(&facts.etag, facts.size);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(Error::io("write", self.path))?;
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// What is not what the hub said is removed.
    fn check(self, what: &str, facts: &FileFacts) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::io("write", self.path))?;
        let wrong = match self.digest.finish() {
            _ if self.length != facts.size => Error::Size {
                file: what.to_owned(),
                found: self.length,
                expected: facts.size,
            },
            Some((kind, found)) if found != facts.etag => Error::Checksum {
                file: what.to_owned(),
                kind,
                found,
                expected: facts.etag.clone(),
            },
            _ => return Ok(()),
        };
        fs::remove_file(self.path).map_err(Error::io("remove", self.path))?;
        Err(wrong)
    }
}
