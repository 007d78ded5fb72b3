//! Do seeds of one prompt differ as much as pictures of one caption do in the data?

use crate::features::MAPS_SIDE_PX;
use crate::judge::picture_of;
use crate::order::{Order, Paint};
use crate::{Error, FeatureNet, OnProgress};
use prima_data::Colour;
use prima_data::world::{Facts, Kind, Place, Time, World, with_article};
use prima_picture::Picture;
use serde::Serialize;

/// All prompts.
pub const VARIETY_PROMPTS: usize = PLAIN.len() + IN_PLACES.len() + AT_HOURS.len();
/// Pictures of each prompt.
const SEEDS: u64 = 4;
/// Renders that are looked through for those that a caption is true of.
const TRIES: u64 = 400;
/// The generator's seed, which no training run uses.
const SEED: u64 = 0x5641_5249;

/// Things on plain ground, things in places, and places at an hour.
const PLAIN: [(&str, Colour); 8] = [
    ("car", Colour::White),
    ("dog", Colour::White),
    ("chair", Colour::LightBlue),
    ("apple", Colour::White),
    ("robot", Colour::Yellow),
    ("guitar", Colour::White),
    ("house", Colour::LightBlue),
    ("mushroom", Colour::Green),
];
const IN_PLACES: [(&str, &str, Place); 8] = [
    ("cat", "in a forest", Place::Forest),
    ("horse", "on a beach", Place::Beach),
    ("fox", "in the snow", Place::SnowyMountains),
    ("astronaut", "in the desert", Place::Desert),
    ("tree", "by a mountain lake", Place::Lake),
    ("cow", "in a meadow", Place::Hills),
    ("cake", "on a wooden table", Place::Table),
    ("boat", "by the sea", Place::Sea),
];
const AT_HOURS: [(&str, Place, &str, Time); 8] = [
    ("a mountain lake", Place::Lake, "at sunset", Time::Sunset),
    ("snowy mountains", Place::SnowyMountains, "at dawn", Time::Dawn),
    ("a city skyline", Place::Skyline, "at night", Time::Night),
    ("a beach", Place::Beach, "during the day", Time::Day),
    ("a pine forest", Place::Forest, "at sunrise", Time::Sunrise),
    ("a village", Place::Village, "at night", Time::Night),
    ("a field of flowers", Place::FlowerField, "during the day", Time::Day),
    ("a desert", Place::Desert, "at sunset", Time::Sunset),
];

/// A prompt, and the generator's pictures that it is a caption of.
struct Case {
    prompt: String,
    kind: Kind,
    noun: Option<&'static str>,
    is_true: Box<dyn Fn(&Facts) -> bool>,
}

fn cases() -> Vec<Case> {
    let plain = PLAIN.iter().map(|(noun, colour)| Case {
        prompt: format!("{} on a {} background", with_article(noun), colour.name()),
        kind: Kind::CloseUp,
        noun: Some(noun),
        is_true: Box::new(|facts| facts.background == Some(*colour)),
    });
    let in_places = IN_PLACES.iter().map(|(noun, words, place)| Case {
        prompt: format!("{} {words}", with_article(noun)),
        kind: Kind::Object,
        noun: Some(noun),
        is_true: Box::new(|facts| facts.place == *place),
    });
    let at_hours = AT_HOURS.iter().map(|(words, place, hour, time)| Case {
        prompt: format!("{words} {hour}"),
        kind: Kind::Of(*place),
        noun: None,
        is_true: Box::new(|facts| facts.time == Some(*time)),
    });
    plain.chain(in_places).chain(at_hours).collect()
}

/// Mean distances between pictures of one prompt, and the same of the generator's pictures of it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Variety {
    pub prompts: usize,
    /// Mean absolute difference of sRGB values, 0 to 1.
    pub pixels: f64,
    pub pixels_of_data: f64,
    /// Sum of absolute differences of EfficientNet-lite0's features of unit length.
    pub features: f64,
    pub features_of_data: f64,
}

impl Variety {
    /// The model's pixel distance in per cent of the data's.
    pub fn pixels_percent(&self) -> f64 {
        100.0 * self.pixels / self.pixels_of_data.max(f64::MIN_POSITIVE)
    }

    pub fn features_percent(&self) -> f64 {
        100.0 * self.features / self.features_of_data.max(f64::MIN_POSITIVE)
    }
}

/// Paints four seeds of each of the first `most` prompts and compares them with the generator's own pictures. Prompts that it
/// has fewer than two pictures of are left out.
pub fn variety(
    net: &FeatureNet,
    world: &World,
    most: usize,
    paint: Paint,
    on_progress: OnProgress,
) -> Result<Variety, Error> {
    let mut cases = cases();
    cases.truncate(most);
    let mut sums = Variety::default();
    for (done, case) in cases.iter().enumerate() {
        on_progress(done, cases.len());
        let own = of_data(world, case);
        if own.len() < 2 {
            continue;
        }
        let mut painted = Vec::new();
        for seed in 0..SEEDS {
            painted.push(paint(&Order::new(&case.prompt, seed))?);
        }
        let ([pixels, features], [pixels_of_data, features_of_data]) = (distances(net, &painted), distances(net, &own));
        sums.prompts += 1;
        sums.pixels += pixels;
        sums.features += features;
        sums.pixels_of_data += pixels_of_data;
        sums.features_of_data += features_of_data;
    }
    let share = 1.0 / sums.prompts.max(1) as f64;
    Ok(Variety {
        prompts: sums.prompts,
        pixels: sums.pixels * share,
        pixels_of_data: sums.pixels_of_data * share,
        features: sums.features * share,
        features_of_data: sums.features_of_data * share,
    })
}

/// The first of the generator's pictures that the prompt is true of.
fn of_data(world: &World, case: &Case) -> Vec<Picture> {
    let size = (MAPS_SIDE_PX, MAPS_SIDE_PX);
    let samples = (0..TRIES).filter_map(|number| match case.noun {
        Some(noun) => world.sample_noun(case.kind, noun, SEED, number, size),
        None => Some(world.sample_of(case.kind, SEED, number, size)),
    });
    let fitting = samples.filter(|sample| (case.is_true)(&sample.facts));
    fitting.take(SEEDS as usize).map(|sample| picture_of(&sample)).collect()
}

/// Mean distances between all pairs: in pixels, in features.
fn distances(net: &FeatureNet, pictures: &[Picture]) -> [f64; 2] {
    let small: Vec<Vec<f32>> = pictures
        .iter()
        .map(|p| {
            let rgb = p.resized(MAPS_SIDE_PX, MAPS_SIDE_PX).rgb;
            rgb.into_iter().map(|v| f32::from(v) / 255.0).collect()
        })
        .collect();
    let values = small.first().map_or(1, Vec::len).max(1) as f64;
    [
        mean_distance(&small) / values,
        mean_distance(&net.features_of(pictures)),
    ]
}

/// Mean over all pairs of the sum of absolute differences.
fn mean_distance(rows: &[Vec<f32>]) -> f64 {
    let (mut sum, mut pairs) = (0.0f64, 0usize);
    for (i, a) in rows.iter().enumerate() {
        for b in &rows[i + 1..] {
            sum += a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>();
            pairs += 1;
        }
    }
    sum / pairs.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_pictures_have_no_variety_and_black_and_white_have_all() {
        assert_eq!(mean_distance(&[vec![0.5; 4], vec![0.5; 4]]), 0.0);
        assert_eq!(mean_distance(&[vec![0.0; 4], vec![1.0; 4]]), 4.0);
        assert_eq!(mean_distance(&[vec![0.0], vec![1.0], vec![1.0]]), 2.0 / 3.0);
    }

    #[test]
    fn every_case_has_a_prompt_of_its_own() {
        let prompts: std::collections::HashSet<String> = cases().into_iter().map(|case| case.prompt).collect();
        assert_eq!(prompts.len(), VARIETY_PROMPTS);
    }
}
