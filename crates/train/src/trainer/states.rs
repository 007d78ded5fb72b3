//! Which states a stage has. `states.json` lists them, newest last, each with its step and the SHA-256 of its file:
//!
//! ```json
//! { "states": [{ "file": "state-00000060.safetensors", "step": 60, "sha256": "9f86..." }] }
//! ```
//!
//! A state is written first and listed when it is on the disk; what is not listed any more is removed last. So a run may be
//! killed anywhere in between, and a listed file that is torn or has rotted is found out by its hash.

use super::state;
use crate::checksum::sha256;
use crate::error::{Error, Result};
use prima_checkpoint::TensorFile;
use prima_checkpoint::export::write_json;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const LIST: &str = "states.json";
/// What older versions called the only state that they kept.
const OLD_NAME: &str = "state.safetensors";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct State {
    file: String,
    step: u64,
    /// In hexadecimal; unknown where there was no list.
    #[serde(default)]
    sha256: Option<String>,
}

#[derive(Deserialize)]
struct List {
    states: Vec<State>,
}

/// The states in a stage's folder, oldest first.
#[derive(Debug)]
pub(crate) struct States {
    dir: PathBuf,
    states: Vec<State>,
}

impl States {
    pub(crate) fn of(dir: &Path) -> Result<Self> {
        let path = dir.join(LIST);
        let states = match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice::<List>(&bytes) {
                Ok(list) if list.states.iter().all(|state| step_of(&state.file).is_some()) => list.states,
                _ => {
                    tracing::warn!(
                        "{} is damaged: the states beside it are used without their hashes",
                        path.display()
                    );
                    found(dir)?
                }
            },
            Err(error) if error.kind() == ErrorKind::NotFound => found(dir)?,
            Err(error) => return Err(Error::io(&path)(error)),
        };
        Ok(Self {
            dir: dir.to_path_buf(),
            states,
        })
    }

    /// Of a run that begins anew.
    pub(super) fn none(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
            states: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// The file of the newest state that is whole, `None` if there are no states at all. Newer ones are forgotten, with a
    /// warning.
    pub(crate) fn newest_whole(&mut self) -> Result<Option<PathBuf>> {
        let mut damaged = Vec::new();
        while let Some(state) = self.states.last() {
            let path = self.dir.join(&state.file);
            match state.check(&path) {
                Ok(()) => {
                    if !damaged.is_empty() {
                        let damaged = damaged.join(", ");
                        tracing::warn!("not whole: {damaged}; {} is used instead", path.display());
                    }
                    return Ok(Some(path));
                }
                Err(why) => damaged.push(format!("{} ({why})", path.display())),
            }
            self.states.pop();
        }
        if damaged.is_empty() {
            return Ok(None);
        }
        Err(Error::NoWholeState(damaged.join(", ")))
    }

    /// Lets `write` make a file of the state at `step`, and keeps the newest `keep` states. One that is kept already stays as it
    /// is.
    pub(super) fn save(&mut self, step: u64, keep: usize, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let newest = self.states.last();
        if newest.is_some_and(|state| state.step == step && state.sha256.is_some()) {
            return Ok(());
        }
        let states = self
            .write_and_list(step, keep, write)
            .map_err(|error| Error::NotSaved {
                step,
                why: error.to_string(),
                kept: newest.map_or_else(
                    || "none was saved before".to_owned(),
                    |state| format!("{} stays", self.dir.join(&state.file).display()),
                ),
            })?;
        let before = std::mem::replace(&mut self.states, states);
        self.remove_unlisted(&before);
        Ok(())
    }

    fn write_and_list(&self, step: u64, keep: usize, write: impl FnOnce(&Path) -> Result<()>) -> Result<Vec<State>> {
        let file = name_of(step);
        let path = self.dir.join(&file);
        write(&path)?;
        let sha256 = Some(sha256(&path)?);
        let mut states = self.states.clone();
        // One without a hash may have the same name.
        states.retain(|state| state.file != file);
        states.push(State { file, step, sha256 });
        states.drain(..states.len().saturating_sub(keep));
        write_json(&self.dir.join(LIST), &json!({ "states": states }))?;
        Ok(states)
    }

    /// Removes states that are not listed: those of `before`, and those that a killed run had no time to list or to remove.
    /// What cannot be removed is tried again at the next save.
    fn remove_unlisted(&self, before: &[State]) {
        let listed = |name: &str| self.states.iter().any(|state| state.file == name);
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        // A file of the old name that nobody listed may have been put there by hand.
        let ours = names.filter(|name| step_of(name).is_some() && name != OLD_NAME);
        let before = before.iter().map(|state| state.file.clone());
        for name in ours.chain(before).filter(|name| !listed(name)) {
            let _ = fs::remove_file(self.dir.join(name));
        }
    }
}

impl State {
    /// Is the file at `path` what was written there?
    fn check(&self, path: &Path) -> std::result::Result<(), String> {
        let Some(expected) = &self.sha256 else {
            return TensorFile::open(path).map(drop).map_err(|error| error.to_string());
        };
        match sha256(path) {
            Ok(found) if found == *expected => Ok(()),
            Ok(_) => Err(format!("its SHA-256 is not the one in {LIST}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The states in a folder without a list.
fn found(dir: &Path) -> Result<Vec<State>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(dir)(error)),
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let mut states: Vec<State> = names
        .filter_map(|file| {
            let step = match step_of(&file)? {
                _ if file == OLD_NAME => state::saved_step(&dir.join(&file)).unwrap_or(0),
                step => step,
            };
            Some(State {
                file,
                step,
                sha256: None,
            })
        })
        .collect();
    states.sort_by_key(|state| state.step);
    Ok(states)
}

fn name_of(step: u64) -> String {
    format!("state-{step:08}.safetensors")
}

/// Is `name` that of a state, or of their list?
pub(crate) fn is_ours(name: &str) -> bool {
    name == LIST || step_of(name).is_some()
}

/// The step that the name of a state's file says, 0 for the old one; `None` if it is no such name.
fn step_of(name: &str) -> Option<u64> {
    if name == OLD_NAME {
        return Some(0);
    }
    let step = name
        .strip_prefix("state-")?
        .strip_suffix(".safetensors")?
        .parse()
        .ok()?;
    (name_of(step) == name).then_some(step)
}
