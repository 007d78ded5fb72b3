//! The renders that the judge learns from and is examined on: the everyday nouns in turn, in every kind of picture.

use super::labels::{Answers, Labels};
use crate::features::{MAPS_SIDE_PX, Maps};
use crate::{Error, FeatureNet, OnProgress};
use prima_data::world::catalogue::Tint;
use prima_data::world::{Kind, Place, Sample, World};
use prima_picture::{Format, Picture, encode};
use prima_tensor::Philox;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;

/// Seeds of the generator that no training run uses: runs count from 0.
pub(crate) const LEARNT_SEED: u64 = 0x4A55_4447_4501;
pub(crate) const HELD_OUT_SEED: u64 = 0x4A55_4447_4502;

/// Pictures after which the kinds begin anew.
pub(super) const ROUND: u64 = 56;

/// Share of the renders to learn from that are blurred, noisy or badly compressed.
const DEGRADED: f32 = 0.4;

/// One render as the judge meets it.
#[derive(Clone, Debug)]
pub(crate) struct Example {
    pub maps: Maps,
    pub labels: Labels,
}

/// What a picture with this number shows: kinds in fixed shares, the nouns in turn within each.
pub(super) fn sample(world: &World, nouns: &[String], seed: u64, number: u64) -> Sample {
    let size = (MAPS_SIDE_PX, MAPS_SIDE_PX);
    let (round, slot) = (number / ROUND, number % ROUND);
    let coloured;
    let mut names = nouns;
    // The kind, and how many of its pictures a round has before this one, and in all.
    let (kind, before, of) = match slot {
        0..10 => (Kind::CloseUp, slot, 10),
        10..18 => (Kind::Object, slot - 10, 8),
        18..28 => (Kind::Count, slot - 18, 10),
        28..38 => (Kind::Pair, slot - 28, 10),
        38..42 => (Kind::Styled, slot - 38, 4),
        42..46 => {
            let place = Place::LANDSCAPES[((round * 4 + slot - 42) % 24) as usize];
            return world.sample_of(Kind::Of(place), seed, number, size);
        }
        46 => (Kind::Figure, 0, 1),
        47 => (Kind::Icon, 0, 1),
        // Half of those that come in any colour do.
        _ => {
            coloured = in_any_colour(world, nouns);
            names = &coloured;
            (
                if slot < 52 { Kind::CloseUp } else { Kind::Object },
                slot - 48,
                ROUND - 48,
            )
        }
    };
    let noun = &names[((round * of + before) % names.len() as u64) as usize];
    world
        .sample_noun(kind, noun, seed, number, size)
        .unwrap_or_else(|| world.sample_of(kind, seed, number, size))
}

/// The nouns all of whose models can be painted.
fn in_any_colour(world: &World, nouns: &[String]) -> Vec<String> {
    let is_paintable = |noun: &&String| {
        let models = world.catalogue.nouns.get(*noun);
        models.is_some_and(|models| models.iter().all(|m| world.catalogue.models[*m].tint != Tint::No))
    };
    nouns.iter().filter(is_paintable).cloned().collect()
}

/// A held-out render, by its number.
pub fn held_out(world: &World, answers: &Answers, number: usize) -> Picture {
    picture_of(&sample(world, &answers.nouns, HELD_OUT_SEED, number as u64))
}

/// A sample's picture.
pub fn picture_of(sample: &Sample) -> Picture {
    Picture {
        width: sample.width,
        height: sample.height,
        rgb: sample.rgb.clone(),
    }
}

/// Renders the pictures of these numbers and looks at each with the feature network. `degraded`: some of them are made worse first.
pub(crate) fn examples(
    world: &World,
    answers: &Answers,
    net: &FeatureNet,
    seed: u64,
    numbers: Range<usize>,
    degraded: bool,
    on_progress: OnProgress,
) -> Result<Vec<Example>, Error> {
    let models: BTreeMap<&str, usize> = world.nouns().into_iter().collect();
    let one = |number: u64| -> Result<Example, Error> {
        let sample = sample(world, &answers.nouns, seed, number);
        let labels = Labels::of(&sample, answers, &models);
        let picture = picture_of(&sample);
        let picture = if degraded {
            degrade(picture, seed, number)?
        } else {
            picture
        };
        Ok(Example {
            maps: net.maps(&picture),
            labels,
        })
    };
    let count = numbers.len();
    let mut all = Vec::with_capacity(count);
    /// Pictures between two words to the progress bar.
    const PART: usize = 64;
    for start in numbers.clone().step_by(PART) {
        on_progress(all.len(), count);
        let part: Result<Vec<Example>, Error> = (start..numbers.end.min(start + PART))
            .into_par_iter()
            .map(|number| one(number as u64))
            .collect();
        all.extend(part?);
    }
    Ok(all)
}

/// A share of the pictures blurred, noisy or compressed, as what a small autoencoder decodes is soft.
fn degrade(picture: Picture, seed: u64, number: u64) -> Result<Picture, Error> {
    let stream = Philox {
        seed,
        image: number as u32,
        purpose: 0x4465,
        step: 0,
    };
    let drawn = stream.uniform(5);
    if drawn[0] >= DEGRADED {
        return Ok(picture);
    }
    let mut picture = picture;
    if drawn[1] < 0.8 {
        picture = blurred(&picture, 0.6 + 1.6 * drawn[2]);
    }
    if drawn[3] < 0.3 {
        let strength = 3.0 + 7.0 * drawn[4];
        let noise = Philox { step: 1, ..stream }.normal(picture.rgb.len());
        for (v, n) in picture.rgb.iter_mut().zip(noise) {
            *v = (f32::from(*v) + strength * n).round().clamp(0.0, 255.0) as u8;
        }
    } else if drawn[3] < 0.6 {
        let jpeg = encode(&picture, Format::Jpeg, (25.0 + 50.0 * drawn[4]) as u8, None)?;
        picture = Picture::decode(&jpeg, "render")?;
    }
    Ok(picture)
}

/// Gaussian blur with this standard deviation, in pixels.
pub(crate) fn blurred(picture: &Picture, sigma: f32) -> Picture {
    let reach = (2.5 * sigma).ceil() as isize;
    let weights: Vec<f32> = (-reach..=reach)
        .map(|d| (-0.5 * (d as f32 / sigma).powi(2)).exp())
        .collect();
    let sum: f32 = weights.iter().sum();
    let (w, h) = (picture.width, picture.height);
    let pass = |values: &[f32], (dx, dy): (isize, isize)| -> Vec<f32> {
        let mut out = vec![0.0f32; values.len()];
        for y in 0..h {
            for x in 0..w {
                for (weight, d) in weights.iter().zip(-reach..=reach) {
                    let sx = (x as isize + d * dx).clamp(0, w as isize - 1) as usize;
                    let sy = (y as isize + d * dy).clamp(0, h as isize - 1) as usize;
                    for c in 0..3 {
                        out[(y * w + x) * 3 + c] += weight / sum * values[(sy * w + sx) * 3 + c];
                    }
                }
            }
        }
        out
    };
    let values: Vec<f32> = picture.rgb.iter().map(|v| f32::from(*v)).collect();
    let rgb = pass(&pass(&values, (1, 0)), (0, 1));
    Picture {
        width: w,
        height: h,
        rgb: rgb.into_iter().map(|v| v.round() as u8).collect(),
    }
}
