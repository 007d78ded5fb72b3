//! The models that are compared: folders of pictures that know their prompts.

use crate::Error;
use prima_picture::{Picture, read_parameters};
use std::path::{Path, PathBuf};

/// A picture of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Painted {
    pub prompt: String,
    pub seed: Option<u64>,
    pub path: PathBuf,
}

/// A model, by its name and its pictures.
#[derive(Clone, Debug)]
pub struct Entrant {
    pub name: String,
    /// By seed, those without one last, then by name.
    pub pictures: Vec<Painted>,
}

impl Entrant {
    /// The pictures (PNG, JPEG, WebP) of a folder. Their prompt is what the file says of its making, or what a `.txt` beside it
    /// says, or else the file's name without its ending. A file that is no picture is an error: it would be missed by one model alone.
    pub fn of_folder(name: &str, folder: &Path) -> Result<Self, Error> {
        let listed = std::fs::read_dir(folder).map_err(Error::file(folder))?;
        let mut paths: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| {
            let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
            matches!(ending.as_deref(), Some("png" | "jpg" | "jpeg" | "webp"))
        });
        paths.sort();
        let mut pictures = paths.into_iter().map(painted).collect::<Result<Vec<_>, _>>()?;
        pictures.sort_by_key(|painted| painted.seed.unwrap_or(u64::MAX));
        Ok(Self {
            name: name.to_owned(),
            pictures,
        })
    }

    /// Of one prompt, in their order.
    pub(crate) fn of_prompt<'a>(&'a self, prompt: &'a str) -> impl Iterator<Item = &'a Painted> {
        self.pictures.iter().filter(move |painted| painted.prompt == prompt)
    }
}

fn painted(path: PathBuf) -> Result<Painted, Error> {
    let bytes = std::fs::read(&path).map_err(Error::file(&path))?;
    Picture::decode(&bytes, &path.display().to_string())?;
    let said = read_parameters(&bytes)?;
    let beside = std::fs::read_to_string(path.with_extension("txt")).ok();
    let stem = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let prompt = said.as_ref().map(|said| said.prompt.clone());
    let prompt = prompt
        .filter(|prompt| !prompt.is_empty())
        .or(beside)
        .unwrap_or_else(stem);
    Ok(Painted {
        prompt: prompt.trim().to_owned(),
        seed: said.and_then(|said| said.get("Seed").and_then(|seed| seed.parse().ok())),
        path,
    })
}
