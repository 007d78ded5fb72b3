//! What the scene generator draws from.

use super::vocabulary::EVERYDAY_SHARE;
use super::{Kind, World, WorldError};
use crate::DataError;
use serde::Deserialize;
use std::collections::BTreeMap;
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
    /// Parts of the kinds of pictures, by name; [`Kind::MIX`] where none is given.
    #[serde(default)]
    pub mix: BTreeMap<String, f32>,
    /// Share of the nouns that are everyday ones.
    #[serde(default = "everyday_share")]
    pub everyday_share: f32,
    /// The only nouns to show; all of the pack where there are none. A glossy icon is shown of one without a model.
    #[serde(default)]
    pub nouns: Vec<String>,
    /// Share of the nouns with a glossy icon whose pictures show that and not a model: one look, which a small network learns
    /// sooner than a thing seen from any side.
    #[serde(default)]
    pub glossy_share: f32,
}

fn everyday_share() -> f32 {
    EVERYDAY_SHARE
}

impl Sources {
    /// The model pack alone.
    pub fn new(models: PathBuf) -> Self {
        Self {
            models,
            packages: None,
            photos: None,
            pixel_art: None,
            mix: BTreeMap::new(),
            everyday_share: EVERYDAY_SHARE,
            nouns: Vec::new(),
            glossy_share: 0.0,
        }
    }

    pub fn open(&self) -> Result<World, DataError> {
        let mix = self.mix.iter().map(|(name, part)| Ok((Kind::from_name(name)?, *part)));
        let mix = mix.collect::<Result<Vec<_>, WorldError>>()?;
        let mut world = World::open(&self.models)?.with_mix(mix, self.everyday_share)?;
        if let Some(folder) = &self.packages {
            world = world.with_icons(folder)?.with_glossy_share(self.glossy_share)?;
        } else if self.glossy_share > 0.0 {
            return Err(WorldError::NoIcons.into());
        }
        if !self.nouns.is_empty() {
            world = world.with_nouns(&self.nouns)?;
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
