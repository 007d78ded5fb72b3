//! A generator of pictures with exact captions: models, landscapes and places, rendered from a seed.
//!
//! [`World::sample`] depends on (seed, number, size) and the model pack alone: no thread, clock or platform maths library
//! has a say. A sample holds the picture, a mask of its objects, a caption and [`Facts`], the structured truth behind the
//! caption. What goes into a picture is decided in [`compose`], painted by the place's painter ([`place`]) and the
//! rasteriser ([`solid`]), and put into words by [`caption`].
//!
//! Everything is computed in linear light; colours in the sources are sRGB bytes turned linear once ([`maths::srgb`]).

mod arrange;
mod camera;
mod canvas;
pub mod caption;
mod cast;
pub mod catalogue;
pub mod compose;
mod cosmos;
mod error;
mod facts;
mod flat;
mod ground;
mod icons;
mod land;
mod light;
pub mod maths;
mod mesh;
mod noise;
mod notice;
mod phrases;
mod place;
mod plants;
mod raster;
mod room;
mod set;
mod shade;
mod shadow;
mod sheet;
mod sky;
mod solid;
mod sources;
mod sprite;
mod style;
mod terrain;
#[cfg(test)]
mod tests;
mod tongues;
mod town;
mod view;
mod vocabulary;
mod water;
mod weather;

pub use caption::{is_counted, plural, with_article};
pub use catalogue::Catalogue;
pub use error::WorldError;
pub use facts::{Facts, Relation, Style, Thing, View};
pub use light::{Time, Weather};
pub use notice::Credit;
pub use place::Place;
pub use room::RoomKind;
pub use sheet::{Sheet, sheet};
pub use sources::Sources;
pub use vocabulary::{Synonym, everyday, synonyms};

use crate::DataError;
use crate::colour::Colour;
use crate::random::Random;
use noise::Noise;
use rayon::prelude::*;
use std::collections::HashSet;
use std::path::Path;
use vocabulary::Vocabulary;

/// Sizes (width, height) in pixels that pictures are composed for, multiples of 16 of about 256 x 256 pixels in all: 1:1,
/// 3:2, 2:3, 16:9, 9:16.
pub const SIZES: [(usize, usize); 5] = [(256, 256), (320, 208), (208, 320), (336, 192), (192, 336)];

/// What the pictures show, in groups: these things, or everyday ones where there are none, and how and where they are painted.
pub fn word_groups(nouns: &[String]) -> Vec<(&'static str, Vec<&str>)> {
    let styles = Style::FILTERS.map(Style::name);
    let things = if nouns.is_empty() {
        everyday()
    } else {
        nouns.iter().map(String::as_str).collect()
    };
    vec![
        ("things", things),
        ("places", Place::LANDSCAPES.map(Place::key).to_vec()),
        ("colours", Colour::OBJECTS.map(Colour::name).to_vec()),
        ("hours", Time::ALL.map(Time::name).to_vec()),
        ("weather", Weather::ALL.map(Weather::name).to_vec()),
        ("styles", styles.to_vec()),
        ("where it is", Relation::ALL.map(Relation::name).to_vec()),
    ]
}

/// The smallest size that pictures are composed for.
const SMALLEST: (usize, usize) = (64, 64);

/// One training sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// [height, width, 3] sRGB.
    pub rgb: Vec<u8>,
    pub width: usize,
    pub height: usize,
    /// [height, width]: 0, or the number of the object that is seen there.
    pub mask: Vec<u8>,
    /// Never empty: leaving captions out is the training's business.
    pub caption: String,
    pub facts: Facts,
}

/// What a sample shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One thing on a plain background in a named colour, or on plain ground.
    CloseUp,
    /// One thing in a place.
    Object,
    /// Two things and how they lie to each other.
    Pair,
    /// Two to four of one thing.
    Count,
    /// A landscape or place by itself.
    Landscape,
    /// Any of these, drawn in a style.
    Styled,
    /// An icon or emoji on a plain background, or two or three of them. Needs [`World::with_icons`].
    Icon,
    /// A glossy icon standing in a place. Needs [`World::with_icons`].
    Figure,
    /// A photograph of fruit or vegetables. Needs [`World::with_photos`].
    Photo,
    /// A pixel-art tile. Needs [`World::with_tiles`].
    Tile,
    /// One landscape or place by name.
    Of(Place),
}

impl Kind {
    /// The kinds that training mixes, with their shares.
    pub const MIX: [(Kind, f32); 10] = [
        (Kind::CloseUp, 0.20),
        (Kind::Object, 0.21),
        (Kind::Pair, 0.12),
        (Kind::Count, 0.08),
        (Kind::Landscape, 0.15),
        (Kind::Styled, 0.08),
        (Kind::Icon, 0.05),
        (Kind::Figure, 0.08),
        (Kind::Photo, 0.02),
        (Kind::Tile, 0.01),
    ];

    /// Every kind that has a name of its own.
    pub fn all() -> Vec<Kind> {
        Self::MIX
            .iter()
            .map(|(kind, _)| *kind)
            .chain(Place::LANDSCAPES.map(Kind::Of))
            .collect()
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::CloseUp => "close-up",
            Kind::Object => "object",
            Kind::Pair => "pair",
            Kind::Count => "count",
            Kind::Landscape => "landscape",
            Kind::Styled => "styled",
            Kind::Icon => "icon",
            Kind::Figure => "figure",
            Kind::Photo => "photo",
            Kind::Tile => "tile",
            Kind::Of(place) => place.key(),
        }
    }

    pub fn from_name(name: &str) -> Result<Kind, WorldError> {
        Self::all()
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| WorldError::Kind(name.to_owned()))
    }
}

/// The generator: the model pack and what is derived from it once.
#[derive(Debug)]
pub struct World {
    pub catalogue: Catalogue,
    vocabulary: Vocabulary,
    noise: Noise,
    /// The kinds of pictures with their parts of the whole.
    mix: Vec<(Kind, f32)>,
    icons: Option<icons::Icons>,
    /// Share of the nouns with a glossy icon that are shown as it.
    glossy_share: f32,
    photos: Vec<(String, Vec<u8>)>,
    tiles: Vec<(String, Vec<u8>)>,
}

impl World {
    /// Opens the folder with the model pack (`assets/models3d`).
    pub fn open(folder: &Path) -> Result<Self, WorldError> {
        let catalogue = Catalogue::open(folder)?;
        let vocabulary = Vocabulary::new(&catalogue);
        Ok(Self {
            catalogue,
            vocabulary,
            noise: Noise::new(),
            mix: Kind::MIX.to_vec(),
            icons: None,
            glossy_share: 0.0,
            photos: Vec::new(),
            tiles: Vec::new(),
        })
    }

    /// With other parts of the kinds than [`Kind::MIX`], unless there are none, and another share of everyday nouns.
    pub fn with_mix(mut self, mix: Vec<(Kind, f32)>, everyday_share: f32) -> Result<Self, WorldError> {
        let whole: f32 = mix.iter().map(|(_, part)| part).sum();
        let is_fair = mix.iter().all(|(_, part)| *part >= 0.0) && (mix.is_empty() || whole > 0.0 && whole.is_finite());
        if !is_fair || !(0.0..=1.0).contains(&everyday_share) {
            return Err(WorldError::Mix);
        }
        if !mix.is_empty() {
            self.mix = mix.into_iter().map(|(kind, part)| (kind, part / whole)).collect();
        }
        self.vocabulary.everyday_share = everyday_share;
        Ok(self)
    }

    /// Adds the icons of a folder of npm packages (`emojibase-data`, `@lobehub/fluent-emoji-3d`, and flat sets).
    pub fn with_icons(mut self, folder: &Path) -> Result<Self, DataError> {
        self.icons = Some(icons::Icons::open(folder)?);
        Ok(self)
    }

    /// Shows this share of the nouns that have a glossy icon as it.
    pub fn with_glossy_share(mut self, share: f32) -> Result<Self, WorldError> {
        if !(0.0..=1.0).contains(&share) {
            return Err(WorldError::Mix);
        }
        self.glossy_share = share;
        Ok(self)
    }

    /// Shows only these nouns, each of a model or, after [`Self::with_icons`], of a glossy icon.
    pub fn with_nouns(mut self, nouns: &[String]) -> Result<Self, WorldError> {
        let is_glossy = |noun: &str| self.icons.as_ref().is_some_and(|icons| icons.has_glossy(noun));
        let unknown = nouns
            .iter()
            .find(|noun| self.vocabulary.models(noun).is_none() && !is_glossy(noun));
        if let Some(noun) = unknown {
            return Err(WorldError::Noun(noun.clone()));
        }
        if nouns.iter().all(|noun| self.vocabulary.models(noun).is_none()) {
            return Err(WorldError::NoModels);
        }
        self.vocabulary.restrict(nouns);
        Ok(self)
    }

    /// Adds an archive of photographs with a `labels.jsonl`, as the data builder takes it.
    pub fn with_photos(mut self, archive: &Path) -> Result<Self, DataError> {
        self.photos = crate::extras::photos(archive)?;
        Ok(self)
    }

    /// Adds an archive of pixel-art tiles, as the data builder takes it.
    pub fn with_tiles(mut self, archive: &Path) -> Result<Self, DataError> {
        self.tiles = crate::extras::tiles(archive)?;
        Ok(self)
    }

    /// Every noun that pictures can show, with the number of models; everyday nouns first, in their list's order.
    pub fn nouns(&self) -> Vec<(&str, usize)> {
        self.vocabulary.listing()
    }

    /// The sample with this number, of a kind and size drawn from the mix.
    pub fn sample(&self, seed: u64, number: u64) -> Sample {
        let (kind, mut random) = self.draw_kind(seed, number);
        // Half of the pictures are square.
        let size = if random.chance(0.5) {
            SIZES[0]
        } else {
            SIZES[1 + random.below(4)]
        };
        self.sample_of(kind, seed, number, size)
    }

    /// The same in one size (width, height) of at least 64 px a side.
    pub fn sample_sized(&self, seed: u64, number: u64, size: (usize, usize)) -> Sample {
        self.sample_of(self.draw_kind(seed, number).0, seed, number, size)
    }

    /// The captions of samples `0..count` of the mix, each once, in the order in which they come. What a picture shows is
    /// decided while it is painted, so that a caption costs a picture: a small one here.
    pub fn captions(&self, seed: u64, count: u64) -> Vec<String> {
        let drawn: Vec<String> = (0..count)
            .into_par_iter()
            .map(|number| self.sample_sized(seed, number, SMALLEST).caption)
            .collect();
        let mut known = HashSet::new();
        drawn
            .into_iter()
            .filter(|caption| known.insert(caption.clone()))
            .collect()
    }

    /// A kind from the mix, and the draws that follow.
    fn draw_kind(&self, seed: u64, number: u64) -> (Kind, Random) {
        let mut random = Random::new(&[seed, number, 0x51]);
        let at = random.unit();
        let mut end = 0.0;
        let found = self.mix.iter().find(|(_, share)| {
            end += share;
            at < end
        });
        (found.map_or(Kind::Object, |(kind, _)| *kind), random)
    }

    /// The sample with this number, of one kind, composed for a size (width, height) of at least 64 px a side.
    pub fn sample_of(&self, kind: Kind, seed: u64, number: u64, (width, height): (usize, usize)) -> Sample {
        let random = Random::new(&[seed, number, 0x50]);
        compose::compose(self, kind, width, height, random, None)
    }

    /// A sample of a kind whose (first) thing is this noun; `None` if no model shows it, nor a glossy icon where those are asked
    /// for.
    pub fn sample_noun(
        &self,
        kind: Kind,
        noun: &str,
        seed: u64,
        number: u64,
        (width, height): (usize, usize),
    ) -> Option<Sample> {
        let is_glossy = |icons: &icons::Icons| self.glossy_share > 0.0 && icons.has_glossy(noun);
        if self.vocabulary.models(noun).is_none() && !self.icons.as_ref().is_some_and(is_glossy) {
            return None;
        }
        let random = Random::new(&[seed, number, 0x52]);
        Some(compose::compose(self, kind, width, height, random, Some(noun)))
    }
}
