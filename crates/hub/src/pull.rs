//! A repository, from what it has to files in their places.

use crate::cache::Repository;
use crate::client::{Client, FileFacts};
use crate::download::Item;
use crate::event::Event;
use crate::{Error, Settings, Wanted, choose};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A model that is there.
#[derive(Clone, Debug, Serialize)]
pub struct Pulled {
    /// As `--model` takes it.
    pub id: String,
    pub revision: String,
    pub commit: String,
    /// The snapshot's folder, or the file that was asked for.
    pub path: PathBuf,
    pub bytes: u64,
    /// How many of them came now.
    pub downloaded: u64,
    pub files: Vec<PulledFile>,
}

#[derive(Clone, Debug, Serialize)]
pub struct PulledFile {
    pub name: String,
    pub bytes: u64,
    pub etag: String,
}

/// Gets what is needed of `wanted` and is not there.
pub fn pull(wanted: &Wanted, settings: &Settings, tell: &mut dyn FnMut(Event)) -> Result<Pulled, Error> {
    let id = &wanted.id;
    if settings.offline {
        return Err(Error::Offline { what: id.to_string() });
    }
    let client = Client::new(settings)?;
    let contents = client.contents(id)?;
    let commit = contents.sha;
    let names: Vec<String> = contents.siblings.into_iter().map(|file| file.rfilename).collect();
    let needed = choose::needed(wanted, &names)?;
    // What a stranger names becomes a path.
    let is_safe = |name: &String| prima_checkpoint::hub::is_file_name(name);
    if !prima_checkpoint::hub::is_plain(&commit) || !needed.iter().all(is_safe) {
        return Err(Error::Answer {
            endpoint: settings.endpoint.clone(),
            what: id.to_string(),
            message: "a name in it leads out of the cache".to_owned(),
        });
    }
    let mut files = Vec::new();
    for name in needed {
        let facts = client.facts(id, &commit, &name)?;
        files.push((name, facts));
    }
    let repository = Repository::new(&settings.cache, &id.repository);
    let bytes = files.iter().map(|(_, facts)| facts.size).sum();
    let count = files.len();
    tell(Event::Plan { files: count, bytes });
    check_room(&repository, &files)?;
    let mut downloaded = 0;
    let snapshot = repository.snapshot(&commit);
    let is_there = |name: &str, bytes: u64| snapshot.join(name).metadata().is_ok_and(|there| there.len() == bytes);
    for (name, facts) in &files {
        let bytes = facts.size;
        tell(Event::File {
            name: name.clone(),
            bytes,
        });
        if is_there(name, bytes) {
            tell(Event::Bytes { bytes });
            continue;
        }
        let item = Item {
            id,
            commit: &commit,
            name,
            facts,
        };
        downloaded += item.fetch(&client, &repository, tell)?;
        if crate::digest::Digest::like(&facts.etag, facts.size).finish().is_none() {
            tell(Event::Unchecked { name: name.clone() });
        }
    }
    // All are here: what is not whole is no snapshot.
    for (name, facts) in files.iter().filter(|(name, facts)| !is_there(name, facts.size)) {
        repository.point(&commit, name, &facts.etag)?;
    }
    // Last, so that a branch never names what is not all there.
    repository.refer(&id.revision, &commit)?;
    Ok(Pulled {
        id: id.to_string(),
        revision: id.revision.clone(),
        path: match &id.file {
            Some(file) => snapshot.join(file),
            None => snapshot,
        },
        commit,
        bytes,
        downloaded,
        files: files
            .into_iter()
            .map(|(name, facts)| PulledFile {
                name,
                bytes: facts.size,
                etag: facts.etag,
            })
            .collect(),
    })
}

/// Whether the disk has room for what is missing.
fn check_room(repository: &Repository, files: &[(String, FileFacts)]) -> Result<(), Error> {
    let folder = repository.made()?;
    let length = |path: PathBuf| path.metadata().map_or(0, |there| there.len());
    let missing = |facts: &FileFacts| {
        let there = length(repository.blob(&facts.etag)).max(length(repository.part(&facts.etag)));
        facts.size.saturating_sub(there)
    };
    let needed: u64 = files.iter().map(|(_, facts)| missing(facts)).sum();
    match free_bytes(folder) {
        Some(free) if free < needed => Err(Error::NoRoom {
            needed: needed.div_ceil(1_000_000),
            free: free / 1_000_000,
            folder: folder.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// What may still be written there, where the system says.
fn free_bytes(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let room = rustix::fs::statvfs(folder).ok()?;
        Some(room.f_bavail.saturating_mul(room.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}
