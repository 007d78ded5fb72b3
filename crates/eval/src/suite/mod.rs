//! The evaluation of a model that learnt from a data set of drawings (`prima data build`): a suite on disk, `suite.json` and,
//! per class, reference pictures of equal size.
//!
//! `classes`: prompts naming one object, classified by the nearest class mean in EfficientNet-lite0 features of reference
//! renders. `colours`: "a COLOUR OBJECT" prompts, judged by the object's hue.

mod classes;
mod colours;
mod quality;
mod write;

pub use classes::Accuracy;
pub use quality::{Ceiling, SuiteJudge, SuiteQuality};
pub use write::SuiteOptions;

use crate::Error;
use prima_picture::Picture;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// One object: how to ask for it, and pictures of it that the model never saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Class {
    pub name: String,
    pub prompt: String,
    /// File names below the suite's folder.
    pub pictures: Vec<String>,
}

/// "a COLOUR OBJECT".
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ColourPrompt {
    pub prompt: String,
    /// A name of [`crate::suite::colours::Hue`].
    pub colour: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Suite {
    /// Where the pictures come from, in words.
    pub description: String,
    pub classes: Vec<Class>,
    pub colours: Vec<ColourPrompt>,
    #[serde(skip)]
    folder: PathBuf,
}

impl Suite {
    pub fn new(description: String, classes: Vec<Class>, colours: Vec<ColourPrompt>) -> Self {
        Self {
            description,
            classes,
            colours,
            folder: PathBuf::new(),
        }
    }

    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("suite.json");
        let text = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
        let mut suite: Self = serde_json::from_str(&text).map_err(Error::file(&path))?;
        folder.clone_into(&mut suite.folder);
        if let Some(class) = suite.classes.iter().find(|c| c.pictures.is_empty()) {
            return Err(Error::EmptyClass {
                path,
                class: class.name.clone(),
            });
        }
        Ok(suite)
    }

    /// The reference pictures of one class.
    pub fn pictures(&self, class: &Class) -> Result<Vec<Picture>, Error> {
        class
            .pictures
            .iter()
            .map(|name| {
                let path = self.folder.join(name);
                let bytes = std::fs::read(&path).map_err(Error::file(&path))?;
                Ok(Picture::decode(&bytes, name)?)
            })
            .collect()
    }
}
