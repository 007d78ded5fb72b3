//! Pictures in memory under the names that ComfyUI's files would have.

use crate::refusal::{Refusal, short};
use axum::body::Bytes;
use prima_picture::Format;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// All of them together.
const MOST_BYTES: usize = 128 << 20;

/// Where ComfyUI keeps a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Folder {
    Input,
    Output,
    Temp,
    /// By ids, for Krita's plugin.
    Cache,
}

impl Folder {
    pub fn named(name: &str) -> Option<Self> {
        [Self::Input, Self::Output, Self::Temp, Self::Cache]
            .into_iter()
            .find(|folder| folder.as_str() == name)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::Temp => "temp",
            Self::Cache => "cache",
        }
    }
}

struct Item {
    folder: Folder,
    name: String,
    bytes: Bytes,
}

/// What was uploaded and painted; the oldest leaves first.
#[derive(Default)]
pub(crate) struct Shelf {
    items: Mutex<VecDeque<Item>>,
}

impl Shelf {
    fn items(&self) -> MutexGuard<'_, VecDeque<Item>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a picture in the place of one of the same name.
    pub fn put(&self, folder: Folder, name: &str, bytes: Bytes) {
        let mut items = self.items();
        items.retain(|item| (item.folder, item.name.as_str()) != (folder, name));
        items.push_back(Item {
            folder,
            name: name.to_owned(),
            bytes,
        });
        let mut all: usize = items.iter().map(|item| item.bytes.len()).sum();
        while all > MOST_BYTES && items.len() > 1 {
            all -= items.pop_front().map_or(0, |item| item.bytes.len());
        }
    }

    pub fn get(&self, folder: Folder, name: &str) -> Option<Bytes> {
        let items = self.items();
        let found = items.iter().find(|item| item.folder == folder && item.name == name);
        found.map(|item| item.bytes.clone())
    }

    /// The file that a graph names, as [`place`] reads it.
    pub fn named(&self, name: &str) -> Result<Bytes, Refusal> {
        let (file, folder) = place(name);
        let missing = || {
            Refusal::bad(format!(
                "there is no picture {:?} here: upload it first",
                short(name, 60)
            ))
        };
        self.get(folder, file).ok_or_else(missing)
    }

    pub fn names(&self, folder: Folder) -> Vec<String> {
        let items = self.items();
        let of_folder = items.iter().filter(|item| item.folder == folder);
        of_folder.map(|item| item.name.clone()).collect()
    }

    /// `apple (1).png` where `apple.png` is there.
    pub fn free_name(&self, folder: Folder, name: &str) -> String {
        let taken = self.names(folder);
        let (stem, ending) = name.rsplit_once('.').unwrap_or((name, "png"));
        let numbered = (1..).map(|n| format!("{stem} ({n}).{ending}"));
        let mut names = std::iter::once(name.to_owned()).chain(numbered);
        names.find(|name| !taken.contains(name)).unwrap_or_default()
    }

    /// `PREFIX_00001_.png`, the first number that nothing has.
    pub fn next_name(&self, folder: Folder, prefix: &str) -> String {
        let taken = self.names(folder);
        let mut names = (1..).map(|n| format!("{prefix}_{n:05}_.png"));
        names.find(|name| !taken.contains(name)).unwrap_or_default()
    }
}

/// A client's name for a file as far as it is one: no folders, no signs that a shell or a page might read.
pub(crate) fn file_name(text: &str) -> String {
    let last = text.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept = last
        .chars()
        .filter(|c| c.is_alphanumeric() || " ._-()".contains(*c))
        .take(100);
    let name: String = kept.collect();
    let name = name.trim_matches(['.', ' ']);
    if name.is_empty() {
        "picture.png".to_owned()
    } else {
        name.to_owned()
    }
}

/// `sub/apple.png [output]` as its name and folder: there are no folders below those three.
fn place(name: &str) -> (&str, Folder) {
    let annotated = name.strip_suffix(']').and_then(|name| name.rsplit_once(" ["));
    let annotated = annotated.and_then(|(file, folder)| Some((file, Folder::named(folder)?)));
    let (file, folder) = annotated.unwrap_or((name, Folder::Input));
    (file.rsplit('/').next().unwrap_or(file), folder)
}

/// What a graph calls a picture that was put here under an id.
pub(super) fn cached(id: &str) -> String {
    format!("{id} [{}]", Folder::Cache.as_str())
}

/// What a picture's file is.
pub(super) fn kind(file: &[u8]) -> &'static str {
    Format::of_file(file).unwrap_or(Format::Png).mime()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_found_by_folder_and_name_and_the_oldest_leave() {
        let shelf = Shelf::default();
        shelf.put(Folder::Input, "a.png", Bytes::from_static(b"one"));
        shelf.put(Folder::Input, "a.png", Bytes::from_static(b"two"));
        assert_eq!(shelf.get(Folder::Input, "a.png").unwrap(), "two");
        assert!(shelf.get(Folder::Output, "a.png").is_none());
        assert_eq!(shelf.free_name(Folder::Input, "a.png"), "a (1).png");
        assert_eq!(shelf.next_name(Folder::Output, "ComfyUI"), "ComfyUI_00001_.png");
        shelf.put(Folder::Output, "large.png", Bytes::from(vec![0; MOST_BYTES]));
        assert_eq!(shelf.names(Folder::Input), Vec::<String>::new());
        assert_eq!(shelf.names(Folder::Output), ["large.png"]);
    }

    #[test]
    fn a_name_may_say_its_folder() {
        assert_eq!(place("a.png"), ("a.png", Folder::Input));
        assert_eq!(place("sub/a.png [output]"), ("a.png", Folder::Output));
        assert_eq!(place("a [b].png"), ("a [b].png", Folder::Input));
        assert_eq!(place("a.png [elsewhere]"), ("a.png [elsewhere]", Folder::Input));
    }

    #[test]
    fn names_hold_no_paths() {
        assert_eq!(file_name("../../etc/passwd"), "passwd");
        assert_eq!(file_name("C:\\a\\my cat (2).png"), "my cat (2).png");
        assert_eq!(file_name("..\0<b>"), "b");
        assert_eq!(file_name("/"), "picture.png");
    }
}
