//! One file of packed weights: an empty page, the forms' bytes, each from a page on, a header that says where they lie, and a
//! trailer: the header's length, its hash and [`MAGIC`]. The header comes last because it is known last.

use crate::Error;
use crate::files::open_regular;
use prima_tensor::{FormKind, FormTag, MappedBytes, MappedFile, Param, Residency};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

const MAGIC: &[u8; 8] = b"primapk1";
/// Length, hash and magic.
const TRAILER: u64 = 8 + 32 + 8;
/// Forms begin where a page does, so that they can be let go one by one.
const PAGE: u64 = 4096;
/// Small ones begin on a cache line.
const LINE: u64 = 64;
/// Longest header: one of a hundred thousand parameters.
const MAX_HEADER: u64 = 64 << 20;

/// A file's header.
#[derive(Serialize, Deserialize)]
pub(super) struct Contents {
    identity: String,
    params: BTreeMap<String, Vec<Listed>>,
}

/// A form of a parameter.
#[derive(Serialize, Deserialize)]
struct Listed {
    usage: u8,
    kind: String,
    block: [usize; 2],
    /// Offset and length of each buffer, in bytes.
    parts: Vec<[u64; 2]>,
}

impl Contents {
    pub fn new(identity: &str) -> Self {
        Self {
            identity: identity.to_owned(),
            params: BTreeMap::new(),
        }
    }
}

pub(super) struct Writer {
    path: PathBuf,
    out: BufWriter<File>,
    at: u64,
    contents: Contents,
}

impl Writer {
    pub fn new(path: &Path, contents: Contents) -> Result<Self, Error> {
        let file = File::options()
            .write(true)
            .open(path)
            .map_err(Error::io("write", path))?;
        Ok(Self {
            path: path.to_path_buf(),
            out: BufWriter::new(file),
            at: 0,
            contents,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes).map_err(Error::io("write", &self.path))
    }

    /// Zeros up to the next place where `bytes` may begin.
    fn align(&mut self, bytes: usize) -> Result<(), Error> {
        let unit = if bytes as u64 >= PAGE { PAGE } else { LINE };
        let gap = self.at.max(1).next_multiple_of(unit) - self.at;
        self.write(&[0; PAGE as usize][..gap as usize])
    }

    /// Those forms of a parameter that `is_wanted` names.
    pub fn add(&mut self, key: &str, param: &Param, is_wanted: impl Fn(&FormTag) -> bool) -> Result<(), Error> {
        let mut forms = Vec::new();
        param.each_form(|tag, parts| {
            if !is_wanted(&tag) {
                return Ok(());
            }
            let mut places = Vec::new();
            for part in parts {
                self.align(part.len())?;
                places.push([self.at, part.len() as u64]);
                self.write(part)?;
            }
            forms.push(Listed {
                usage: tag.usage,
                kind: tag.kind.as_str().to_owned(),
                block: tag.block,
                parts: places,
            });
            Ok(())
        })?;
        if !forms.is_empty() {
            self.contents.params.insert(key.to_owned(), forms);
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<(), Error> {
        let header = serde_json::to_vec(&self.contents).map_err(|error| Error::File {
            file: self.path.display().to_string(),
            message: error.to_string(),
        })?;
        self.align(1)?;
        self.write(&header)?;
        self.write(&(header.len() as u64).to_le_bytes())?;
        self.write(&Sha256::digest(&header))?;
        self.write(MAGIC)?;
        let file = self.out.into_inner().map_err(std::io::IntoInnerError::into_error);
        let file = file.map_err(Error::io("write", &self.path))?;
        let mut permissions = file.metadata().map_err(Error::io("write", &self.path))?.permissions();
        // So that no program that means another file shortens it by mistake.
        permissions.set_readonly(true);
        file.set_permissions(permissions)
            .map_err(Error::io("write", &self.path))
    }
}

/// The header of an open file and where it begins; `None` unless it is all there.
fn contents(file: &mut File, length: u64) -> Option<(Contents, u64)> {
    let mut trailer = [0; TRAILER as usize];
    file.seek(SeekFrom::Start(length.checked_sub(TRAILER)?)).ok()?;
    file.read_exact(&mut trailer).ok()?;
    let (number, rest) = trailer.split_first_chunk::<8>()?;
    let (hash, magic) = rest.split_at(32);
    let bytes = u64::from_le_bytes(*number);
    if magic != MAGIC || bytes > MAX_HEADER {
        return None;
    }
    let start = (length - TRAILER).checked_sub(bytes)?;
    let mut header = vec![0; bytes as usize];
    file.seek(SeekFrom::Start(start)).ok()?;
    file.read_exact(&mut header).ok()?;
    if Sha256::digest(&header)[..] != *hash {
        return None;
    }
    Some((serde_json::from_slice(&header).ok()?, start))
}

/// What a file was made of; `None` if it is damaged.
pub(super) fn identity(path: &Path) -> Option<String> {
    let (mut file, length) = open_regular(path).ok()?;
    Some(contents(&mut file, length)?.0.identity)
}

/// A mapped file.
pub(super) struct PackedFile {
    map: Arc<MappedFile>,
    contents: Contents,
    /// Where the forms end.
    end: u64,
}

impl PackedFile {
    /// `None` if it is not there, damaged, or was made of something else.
    pub fn open(path: &Path, identity: &str, kept: Option<(Arc<Residency>, bool)>) -> Option<Self> {
        let (mut file, length) = open_regular(path).ok()?;
        let (contents, end) = contents(&mut file, length)?;
        if contents.identity != identity {
            return None;
        }
        // For `models cache`, and what goes first when the cache is full; nothing depends on it.
        let _ = file.set_modified(SystemTime::now());
        // SAFETY: it has a header, so it was put in this place whole, by `Writer` and a rename. prima never opens such a file
        // for writing: another one takes its name, or the name is removed, and the bytes stay for whoever has it open, as
        // the map does. It lies in a folder for its owner alone, and nobody has the right to write to it without first
        // taking that right.
        let map = unsafe { MappedFile::new(file, kept) }.ok()?;
        Some(Self { map, contents, end })
    }

    /// The uses of parameters of which this has a form.
    pub fn uses(&self) -> HashSet<(String, u8)> {
        let params = self.contents.params.iter();
        params
            .flat_map(|(key, forms)| forms.iter().map(|form| (key.clone(), form.usage)))
            .collect()
    }

    /// Gives `params` the forms that are here. `false` if one does not fit, or, where all are wanted, has no value here.
    pub fn attach(&self, params: &[(String, Param)], all: bool) -> bool {
        params.iter().all(|(key, param)| {
            let Some(listed) = self.contents.params.get(key) else {
                return !all;
            };
            if all && !listed.iter().any(|form| form.usage == 0) {
                return false;
            }
            let forms = listed.iter().map(|form| self.form(form)).collect::<Option<Vec<_>>>();
            forms.is_some_and(|forms| param.attach(forms))
        })
    }

    fn form(&self, listed: &Listed) -> Option<(FormTag, Vec<MappedBytes>)> {
        let kind = FormKind::ALL.into_iter().find(|kind| kind.as_str() == listed.kind)?;
        let tag = FormTag {
            usage: listed.usage,
            kind,
            block: listed.block,
        };
        let part = |&[offset, length]: &[u64; 2]| {
            let end = offset.checked_add(length).filter(|end| *end <= self.end)?;
            MappedBytes::new(&self.map, offset as usize..end as usize)
        };
        Some((tag, listed.parts.iter().map(part).collect::<Option<_>>()?))
    }
}
