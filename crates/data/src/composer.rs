//! Makes training samples on the fly from the sprites of a data set: picture and caption, by index.

use crate::canvas::{Placement, SIDE_PX, canvas, draw, jitter};
use crate::caption::{self, Said};
use crate::colour::{self, Colour};
use crate::dataset::{Dataset, Kind, SpriteRecord};
use crate::languages;
use crate::packages::LANGUAGES;
use crate::random::Random;
use crate::scene;
use crate::{DataError, Profile};
use std::path::Path;

/// One training sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// [128, 128, 3] sRGB.
    pub rgb: Vec<u8>,
    /// Empty in one sample of ten, for classifier-free guidance.
    pub caption: String,
    /// Index of the (first) noun in [`Dataset::nouns`].
    pub noun: usize,
}

/// What samples are like. All fractions are from 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct ComposerOptions {
    pub seed: u64,
    /// Samples with two objects or a count.
    pub scenes: f32,
    /// Samples that are photographs.
    pub photos: f32,
    /// Samples that are pixel art.
    pub pixel_art: f32,
    /// Single objects on white; a caption that names no background means white.
    pub white_background: f32,
    /// Repainted objects, of those whose hue can be shifted.
    pub repaint: f32,
    /// Objects that are a little smaller and off the centre.
    pub jitter: f32,
    /// Mirrored objects.
    pub flip: f32,
    /// Captions left empty.
    pub empty_caption: f32,
    /// Captions in English; the others share the rest.
    pub english: f32,
    /// Captions with a second word for the noun.
    pub tag: f32,
    /// Captions that name the style.
    pub style: f32,
    /// How much more often each of the evaluation nouns is seen than another noun.
    pub evaluation_noun_weight: f32,
    /// A drawing style, and the share of objects shown in it where the noun has it.
    pub favoured_style: Option<(String, f32)>,
}

/// Nouns at the head of the core list, over which recognisability is measured.
pub const EVALUATION_NOUNS: usize = 100;

impl ComposerOptions {
    /// The mix of a profile: the core one is narrow (single objects, mostly on white, never mirrored), so that a model
    /// that sees few samples learns objects first.
    pub fn for_profile(profile: Profile, seed: u64) -> Self {
        let core = profile == Profile::Core;
        Self {
            seed,
            scenes: if core { 0.0 } else { 0.4 },
            photos: if core { 0.0 } else { 0.15 },
            pixel_art: if core { 0.0 } else { 0.05 },
            white_background: if core { 0.6 } else { 0.4 },
            repaint: if core { 0.3 } else { 0.35 },
            jitter: JITTER,
            flip: if core { 0.0 } else { 0.5 },
            empty_caption: 0.1,
            english: 0.75,
            tag: if core { 0.0 } else { 0.1 },
            style: 0.25,
            evaluation_noun_weight: if core { 2.0 } else { 3.0 },
            favoured_style: None,
        }
    }
}

/// Share of moved objects unless told otherwise, and in evaluation pictures.
const JITTER: f32 = 0.5;

/// Streams of random numbers that never meet.
const TRAINING: u64 = 1;
const HELD_BACK: u64 = 2;
const REFERENCE: u64 = 3;

/// The sprites of one noun.
#[derive(Debug, Clone, Default)]
struct NounSprites {
    /// Drawn objects for training; the best-looking set is listed twice.
    train: Vec<usize>,
    held_back: Vec<usize>,
    photos: Vec<usize>,
    pixel_art: Vec<usize>,
}

/// Deterministic source of samples: `sample(index)` depends on the data set, the options and the index alone.
#[derive(Debug)]
pub struct Composer {
    dataset: Dataset,
    options: ComposerOptions,
    by_noun: Vec<NounSprites>,
    /// (noun, end of its share of [0, 1)), for nouns that have drawn objects.
    shares: Vec<(usize, f32)>,
    photos: Vec<usize>,
    pixel_art: Vec<usize>,
}

impl Composer {
    /// Opens the data set in `folder`.
    pub fn open(folder: &Path, seed: u64) -> Result<Self, DataError> {
        let dataset = Dataset::open(folder)?;
        let options = ComposerOptions::for_profile(dataset.manifest.profile, seed);
        Self::new(dataset, options)
    }

    pub fn new(dataset: Dataset, options: ComposerOptions) -> Result<Self, DataError> {
        let mut by_noun = vec![NounSprites::default(); dataset.nouns.len()];
        for (id, sprite) in dataset.sprites.iter().enumerate() {
            let noun = &mut by_noun[sprite.noun];
            match sprite.kind {
                Kind::Object if sprite.held_back => noun.held_back.push(id),
                Kind::Object => noun
                    .train
                    .extend([id].repeat(if sprite.set == "fluent-3d" { 2 } else { 1 })),
                Kind::Photo => noun.photos.push(id),
                Kind::PixelArt => noun.pixel_art.push(id),
            }
        }
        let weight = |noun: usize| match dataset.nouns[noun].core_rank {
            Some(rank) if rank < EVALUATION_NOUNS => options.evaluation_noun_weight,
            Some(_) => 1.0,
            None => 0.5,
        };
        let drawn: Vec<usize> = (0..by_noun.len()).filter(|n| !by_noun[*n].train.is_empty()).collect();
        if drawn.is_empty() {
            return Err(DataError::Empty);
        }
        let total: f32 = drawn.iter().map(|n| weight(*n)).sum();
        let mut end = 0.0;
        let shares = drawn
            .iter()
            .map(|n| {
                end += weight(*n) / total;
                (*n, end)
            })
            .collect();
        let all =
            |pick: fn(&NounSprites) -> &Vec<usize>| by_noun.iter().flat_map(|n| pick(n).iter().copied()).collect();
        let (photos, pixel_art) = (all(|n| &n.photos), all(|n| &n.pixel_art));
        Ok(Self {
            dataset,
            options,
            by_noun,
            shares,
            photos,
            pixel_art,
        })
    }

    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    pub fn options(&self) -> &ComposerOptions {
        &self.options
    }

    /// The evaluation nouns that the data set has, most common first.
    pub fn evaluation_nouns(&self) -> Vec<usize> {
        let mut nouns: Vec<(usize, usize)> = (0..self.dataset.nouns.len())
            .filter_map(|n| Some((self.dataset.nouns[n].core_rank.filter(|r| *r < EVALUATION_NOUNS)?, n)))
            .collect();
        nouns.sort_unstable();
        nouns.into_iter().map(|(_, noun)| noun).collect()
    }

    /// The plain prompt of a noun: `a dog`.
    pub fn prompt(&self, noun: usize) -> &str {
        &self.dataset.nouns[noun].phrase
    }

    /// The training sample with this index.
    pub fn sample(&self, index: u64) -> Result<Sample, DataError> {
        let mut random = Random::new(&[self.options.seed, TRAINING, index]);
        let kind = random.unit();
        let o = &self.options;
        let mut sample = if kind < o.photos && !self.photos.is_empty() {
            let id = random.pick(&self.photos).copied().unwrap_or_default();
            self.photo(id, &mut random)?
        } else if kind < o.photos + o.pixel_art && !self.pixel_art.is_empty() {
            let id = random.pick(&self.pixel_art).copied().unwrap_or_default();
            self.single(id, &mut random)?
        } else if kind < o.photos + o.pixel_art + o.scenes {
            scene::compose(self, &mut random)?
        } else {
            let id = self.draw_sprite(&mut random);
            self.single(id, &mut random)?
        };
        if random.chance(o.empty_caption) {
            sample.caption.clear();
        }
        Ok(sample)
    }

    /// A drawn object for training, its noun by weight.
    pub(super) fn draw_sprite(&self, random: &mut Random) -> usize {
        let at = random.unit();
        let place = self
            .shares
            .partition_point(|(_, end)| *end <= at)
            .min(self.shares.len() - 1);
        let sprites = &self.by_noun[self.shares[place].0].train;
        if let Some((style, share)) = &self.options.favoured_style
            && random.chance(*share)
            && let Some(id) = sprites.iter().find(|id| self.dataset.sprites[**id].style == *style)
        {
            return *id;
        }
        random.pick(sprites).copied().unwrap_or_default()
    }

    /// One object, captioned.
    fn single(&self, id: usize, random: &mut Random) -> Result<Sample, DataError> {
        let sprite = &self.dataset.sprites[id];
        let noun = &self.dataset.nouns[sprite.noun];
        let mut pixels = self.dataset.pixels(id)?;
        let repainted = (sprite.hue_shiftable && random.chance(self.options.repaint))
            .then(|| random.pick(&Colour::OBJECTS).copied())
            .flatten();
        if let Some(colour) = repainted {
            colour::repaint(&mut pixels, sprite.hue, sprite.luma, colour);
        }
        let (background, named) = self.background(sprite, repainted, random);
        let mut canvas = canvas(background.background());
        let flip = random.chance(self.options.flip);
        let share = if sprite.kind == Kind::Object {
            self.options.jitter
        } else {
            0.0
        };
        draw(&mut canvas, &pixels, &jitter(share, random), flip);

        let natural = if repainted.is_none() && random.chance(0.25) {
            sprite.main_colour()
        } else {
            None
        };
        let said = Said {
            colour: repainted.or(natural),
            background: named.then_some(background),
            tag: if random.chance(self.options.tag) {
                random.pick(&noun.tags).map(String::as_str)
            } else {
                None
            },
            style: (sprite.kind == Kind::PixelArt || random.chance(self.options.style))
                .then_some(sprite.style.as_str()),
        };
        let caption = if random.chance(self.options.english) {
            None
        } else {
            let code = random.pick(&LANGUAGES[1..]);
            code.and_then(|code| languages::in_language(noun, code, said, random))
        };
        let caption = caption.unwrap_or_else(|| caption::english(&noun.phrase, said, random));
        Ok(Sample {
            rgb: canvas,
            caption,
            noun: sprite.noun,
        })
    }

    fn photo(&self, id: usize, random: &mut Random) -> Result<Sample, DataError> {
        let sprite = &self.dataset.sprites[id];
        let pixels = self.dataset.pixels(id)?;
        let mut canvas = canvas([255; 3]);
        let zoom = random.range(1.0, 1.15);
        let room = (zoom - 1.0) * SIDE_PX as f32 / 2.0;
        let place = Placement {
            scale: zoom,
            x: random.range(-room, room),
            y: random.range(-room, room),
        };
        draw(&mut canvas, &pixels, &place, random.chance(0.5));
        // Most of the photographs show several of the fruit.
        let noun = &self.dataset.nouns[sprite.noun];
        let several = caption::several(&noun.phrase);
        let said = Said {
            style: Some(&sprite.style),
            ..Said::default()
        };
        let caption = caption::english(if random.chance(0.5) { &several } else { &noun.phrase }, said, random);
        Ok(Sample {
            rgb: canvas,
            caption,
            noun: sprite.noun,
        })
    }

    /// A background that the object stands out from, and whether the caption names it. White may stay unnamed.
    pub(super) fn background(
        &self,
        sprite: &SpriteRecord,
        repainted: Option<Colour>,
        random: &mut Random,
    ) -> (Colour, bool) {
        let object = repainted.map_or(sprite.mean_rgb.map(|v| f32::from(v) / 255.0), Colour::object);
        let distance = |colour: Colour| -> f32 {
            let rgb = colour.background().map(|v| f32::from(v) / 255.0);
            rgb.iter()
                .zip(object)
                .map(|(a, b)| (a - b) * (a - b))
                .sum::<f32>()
                .sqrt()
        };
        if random.chance(self.options.white_background) && repainted != Some(Colour::White) {
            return (Colour::White, random.chance(0.25));
        }
        let clear: Vec<Colour> = Colour::BACKGROUNDS
            .into_iter()
            .filter(|c| distance(*c) > 0.35)
            .collect();
        (random.pick(&clear).copied().unwrap_or(Colour::White), true)
    }

    /// Held-back sprites of a noun; 0 if it has none.
    pub fn held_back_len(&self, noun: usize) -> usize {
        self.by_noun[noun].held_back.len()
    }

    /// The `k`-th evaluation picture [128, 128, 3] of a noun, on white. It shows a sprite of the set that is held back
    /// from training for this noun; for a noun with too few sets to hold one back, a training sprite in a placement
    /// drawn from a stream of its own. `k` = 0 is centred, others are jittered.
    pub fn held_back(&self, noun: usize, k: usize) -> Result<Vec<u8>, DataError> {
        let own = &self.by_noun[noun];
        let sprites = if own.held_back.is_empty() {
            &own.train
        } else {
            &own.held_back
        };
        self.plain(
            sprites,
            k,
            Random::new(&[self.options.seed, HELD_BACK, noun as u64, k as u64]),
        )
    }

    /// The `k`-th picture [128, 128, 3] of a noun on white made from its training sprites in turn: for class means.
    pub fn reference(&self, noun: usize, k: usize) -> Result<Vec<u8>, DataError> {
        let random = Random::new(&[self.options.seed, REFERENCE, noun as u64, k as u64]);
        self.plain(&self.by_noun[noun].train, k, random)
    }

    /// The drawings [128, 128, 3] of a noun that training may see, each once, centred on white, with their styles.
    pub fn drawings(&self, noun: usize) -> Result<Vec<(&str, Vec<u8>)>, DataError> {
        let mut ids = self.by_noun[noun].train.clone();
        ids.dedup();
        ids.into_iter()
            .map(|id| {
                let mut canvas = canvas([255; 3]);
                draw(&mut canvas, &self.dataset.pixels(id)?, &Placement::CENTRED, false);
                Ok((self.dataset.sprites[id].style.as_str(), canvas))
            })
            .collect()
    }

    fn plain(&self, sprites: &[usize], k: usize, mut random: Random) -> Result<Vec<u8>, DataError> {
        let mut canvas = canvas([255; 3]);
        if let Some(id) = sprites.get(k % sprites.len().max(1)) {
            let place = if k == 0 {
                Placement::CENTRED
            } else {
                jitter(JITTER, &mut random)
            };
            draw(&mut canvas, &self.dataset.pixels(*id)?, &place, false);
        }
        Ok(canvas)
    }
}
