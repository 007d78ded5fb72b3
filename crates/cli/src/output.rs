//! Where pictures go. Files appear whole or not at all, and never in the place of others unless that was asked for.

use crate::out::note;
use crate::{Usage, out};
use anyhow::{Context, Result};
use prima_checkpoint::export::write_bytes;
use prima_checkpoint::whole_file;
use prima_picture::Format;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where a picture goes, and as what.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    Stdout,
    File(PathBuf, Format),
}

/// A picture that is to be written: what its placeholders stand for.
pub struct Wanted(pub Vec<(&'static str, String)>);

impl Wanted {
    pub fn painted(prompt: &str, seed: u64) -> Self {
        Self(vec![("prompt", as_file_name(prompt)), ("seed", seed.to_string())])
    }
}

/// What a painted picture is called.
pub const PAINTED: &str = "prima-{seed}.png";

/// A place for each of `wanted`: `path`, or, where that is a folder, `name` in it, or else `beside`, which also has placeholders;
/// an error, before any work, if one cannot be written. What is there already stays, and the new picture's name gets a number,
/// but for `overwrite`.
pub fn targets(
    path: Option<&Path>,
    [beside, name]: [&str; 2],
    overwrite: bool,
    wanted: &[Wanted],
) -> Result<Vec<Target>> {
    if path == Some(Path::new("-")) {
        let count = wanted.len();
        if count > 1 {
            return Err(Usage(format!(
                "stdout takes one picture, and {count} are asked for: give a name with -o"
            ))
            .into());
        }
        return Ok(vec![Target::Stdout]);
    }
    let template = path.map_or(Ok(beside.into()), |path| template(path, name))?;
    let Some(format) = template.extension().and_then(|ending| Format::named(ending.to_str()?)) else {
        let message = format!(
            "{} ends in none of .png, .jpg and .webp, the formats that prima writes; a folder ends in /",
            template.display()
        );
        return Err(Usage(message).into());
    };
    let names = expanded(&template.to_string_lossy(), wanted)?;
    for name in &names {
        check_kind(name)?;
    }
    let names = if overwrite { numbered(&names, 0) } else { free(&names) };
    names.iter().try_for_each(|file| check_writable(file))?;
    Ok(names.into_iter().map(|name| Target::File(name, format)).collect())
}

/// The path with its placeholders, with `name` in a folder.
fn template(path: &Path, name: &str) -> Result<PathBuf> {
    if path.to_string_lossy().ends_with(['/', std::path::MAIN_SEPARATOR]) {
        fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))?;
    }
    Ok(if path.is_dir() {
        path.join(name)
    } else {
        path.to_path_buf()
    })
}

/// The names of all pictures, which may be the same.
fn expanded(template: &str, wanted: &[Wanted]) -> Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for (i, Wanted(values)) in wanted.iter().enumerate() {
        let (mut name, mut rest) = (String::new(), template);
        while let Some((before, after)) = rest.split_once('{') {
            let (key, after) = after.split_once('}').unwrap_or((after, ""));
            name.push_str(before);
            match values.iter().find(|(known, _)| *known == key) {
                Some((_, value)) => name.push_str(value),
                None if key == "index" => name.push_str(&(i + 1).to_string()),
                None => {
                    let known: Vec<String> = values.iter().map(|(known, _)| format!("{{{known}}}")).collect();
                    let message = format!(
                        "{{{key}}} in {template} stands for nothing: use {} or {{index}}",
                        known.join(", ")
                    );
                    return Err(Usage(message).into());
                }
            }
            rest = after;
        }
        names.push(PathBuf::from(name + rest));
    }
    Ok(names)
}

/// Letters and digits of a prompt with `-` between the words; as much of it as fits a file's name.
fn as_file_name(prompt: &str) -> String {
    const MOST_BYTES: usize = 80;
    let mut name = String::new();
    for word in prompt
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
    {
        if name.len() + word.len() > MOST_BYTES {
            break;
        }
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(word);
    }
    if name.is_empty() { "picture".to_owned() } else { name }
}

/// `out.png` as it is where all names differ, else `out-1.png`, `out-2.png`, ..., counted from `before`.
fn numbered(names: &[PathBuf], before: usize) -> Vec<PathBuf> {
    let mut different = HashSet::new();
    if names.iter().all(|name| different.insert(name)) {
        return names.to_vec();
    }
    let number = |(i, name): (usize, &PathBuf)| with_number(name, before + i + 1);
    names.iter().enumerate().map(number).collect()
}

fn with_number(path: &Path, number: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{number}.{ending}"))
}

/// Names that nothing has yet: several pictures of one name are numbered on, `out.png` becomes `out-2.png`.
fn free(names: &[PathBuf]) -> Vec<PathBuf> {
    let first = numbered(names, 0);
    let found = if first == names {
        let mut taken = HashSet::new();
        let next = |name: &PathBuf| {
            let numbers = (2..).map(|number| with_number(name, number));
            let mut candidates = std::iter::once(name.clone()).chain(numbers);
            let name = candidates
                .find(|name| !name.exists() && !taken.contains(name))
                .unwrap_or_default();
            taken.insert(name.clone());
            name
        };
        names.iter().map(next).collect()
    } else {
        let mut runs = (0..).map(|before| numbered(names, before));
        runs.find(|run| !run.iter().any(|name| name.exists()))
            .unwrap_or_default()
    };
    if let Some((there, instead)) = first.iter().zip(&found).find(|(there, found)| there != found) {
        note!(
            "{} is there already: the picture goes to {} (--overwrite replaces it)",
            there.display(),
            instead.display()
        );
    }
    found
}

fn check_kind(path: &Path) -> Result<()> {
    if let Ok(there) = fs::metadata(path)
        && !there.is_file()
    {
        anyhow::bail!(
            "cannot write {}: it is {}; give a file name with -o",
            path.display(),
            kind(&there)
        );
    }
    Ok(())
}

fn check_writable(path: &Path) -> Result<()> {
    check_kind(path)?;
    // It also removes what a killed `paint` left of this file.
    explained(path, whole_file::check_writable(path))
}

/// What there is in the place of a file.
fn kind(metadata: &fs::Metadata) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kind = metadata.file_type();
        if kind.is_fifo() {
            return "a pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    if metadata.is_dir() {
        "a folder"
    } else {
        "something that is not a file"
    }
}

/// The bytes of a file, of a picture or a mask.
pub fn read_file(path: &Path, what: &str) -> Result<Vec<u8>> {
    let cannot = || format!("cannot read the {what} {}", path.display());
    // A pipe or a device may never end.
    let metadata = fs::metadata(path).with_context(cannot)?;
    if !metadata.is_file() {
        anyhow::bail!("{}: it is not a file but {}", cannot(), kind(&metadata));
    }
    fs::read(path).with_context(cannot)
}

impl Target {
    pub fn format(&self) -> Format {
        match self {
            Self::Stdout => Format::Png,
            Self::File(_, format) => *format,
        }
    }

    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Stdout => None,
            Self::File(path, _) => Some(path),
        }
    }

    /// A reader of the file sees the old one or the whole new one.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Stdout => out::bytes(bytes),
            Self::File(path, _) => explained(path, write_bytes(path, bytes)),
        }
    }
}

/// What went wrong, and what helps; the path once.
fn explained(path: &Path, done: Result<(), prima_checkpoint::Error>) -> Result<()> {
    let why = |error| match error {
        prima_checkpoint::Error::Io { source, .. } => source.into(),
        other => anyhow::Error::from(other),
    };
    let what = || format!("cannot write {} (choose another place with -o)", path.display());
    done.map_err(why).with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(template: &str, prompts: &[&str]) -> Vec<String> {
        let wanted: Vec<Wanted> = prompts.iter().map(|prompt| Wanted::painted(prompt, 7)).collect();
        let names = numbered(&expanded(template, &wanted).unwrap(), 0);
        names.iter().map(|name| name.display().to_string()).collect()
    }

    #[test]
    fn several_pictures_are_numbered() {
        assert_eq!(names("a/b.png", &["x"]), ["a/b.png"]);
        assert_eq!(names("a/b.c.webp", &["x", "x"]), ["a/b.c-1.webp", "a/b.c-2.webp"]);
        assert_eq!(names("{index}.png", &["x", "x"]), ["1.png", "2.png"]);
    }

    #[test]
    fn names_hold_the_prompt_and_the_seed() {
        let prompts = ["A red apple, on a/table!", "../\u{732b}"];
        assert_eq!(
            names("{prompt}-{seed}.jpg", &prompts),
            ["A-red-apple-on-a-table-7.jpg", "\u{732b}-7.jpg"]
        );
        assert_eq!(names("{prompt}.png", &["", "?"]), ["picture-1.png", "picture-2.png"]);
        assert!(as_file_name(&"word ".repeat(100)).len() <= 80);
        let unknown = expanded("{steps}.png", &[Wanted::painted("", 7)]);
        assert!(unknown.unwrap_err().to_string().contains("{steps}"));
    }
}
