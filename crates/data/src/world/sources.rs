//! What the scene generator draws from.

use super::World;
use crate::DataError;
use serde::Deserialize;
use std::path::PathBuf;

/// The model pack, and what may be added to it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sources {
    /// Folder of the model pack.
    pub models: PathBuf,
    /// Folder of npm packages with icons, which stand in for nouns without a model.
    #[serde(default)]
    pub packages: Option<PathBuf>,
    /// Archive of photographs.
    #[serde(default)]
    pub photos: Option<PathBuf>,
    /// Archive of pixel-art tiles.
    #[serde(default)]
    pub pixel_art: Option<PathBuf>,
}

impl Sources {
    pub fn open(&self) -> Result<World, DataError> {
        let mut world = World::open(&self.models)?;
        if let Some(folder) = &self.packages {
            world = world.with_icons(folder)?;
        }
        if let Some(archive) = &self.photos {
            world = world.with_photos(archive)?;
        }
        if let Some(archive) = &self.pixel_art {
            world = world.with_tiles(archive)?;
        }
        Ok(world)
    }
}
