//! Several models beside each other, at several numbers of steps: how far their pictures are from real ones, how varied those of
//! one prompt are, and what a picture costs. Written as one HTML file that needs nothing else, and the same numbers as JSON.

mod chart;
mod html;

pub use html::html;

use crate::distances::{Distances, between, cmmd, frechet};
use crate::{ClipNet, Error, Networks, OnProgress, Order, Seen};
use prima_picture::{Picture, contact_sheet};
use prima_pipeline::Pipeline;
use serde::Serialize;
use std::time::Instant;

/// Pictures of a row of a contact sheet, and how many a sheet has at most.
const COLUMNS: usize = 8;
const ON_SHEET: usize = 48;

/// What all models are asked, and what they are measured with.
pub struct Questions<'a> {
    pub prompts: &'a [String],
    /// Pictures of each prompt, of the seeds from 0.
    pub seeds: u64,
    pub networks: &'a Networks,
    /// What they see in real pictures.
    pub real: Option<&'a Seen>,
}

/// A model at a number of steps.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    pub model: String,
    pub steps: usize,
    pub pictures: usize,
    /// The median of a picture, with its text and its decoding, in milliseconds.
    pub latency_ms: f64,
    /// From the real pictures, where there are any.
    pub distances: Option<Distances>,
    /// The Frechet distance of patches from those of the real pictures.
    pub patch_frechet: Option<f64>,
    pub cmmd: Option<f64>,
    /// The mean CLIP score of the pictures and their prompts.
    pub clip_score: Option<f64>,
    /// The mean distance of two pictures of one prompt, in features; of one picture there is none.
    pub diversity: Option<f64>,
    #[serde(skip)]
    pub sheet: Picture,
}

/// All that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub features: String,
    pub prompts: usize,
    pub seeds: u64,
    /// Real pictures, and where they are from.
    pub real: Option<(String, usize)>,
    pub results: Vec<Measured>,
}

/// Paints all prompts with `pipeline` in `steps` steps, and measures that. Errors where no prompt or no seed is asked for.
pub fn measure(
    name: &str,
    pipeline: &Pipeline,
    steps: usize,
    questions: &Questions,
    on_progress: OnProgress,
) -> Result<Measured, Error> {
    let (mut pictures, mut times) = (Vec::new(), Vec::new());
    let total = questions.prompts.len() * questions.seeds as usize;
    for prompt in questions.prompts {
        for seed in 0..questions.seeds {
            on_progress(pictures.len(), total);
            let started = Instant::now();
            pictures.push(Order::new(prompt, seed).paint(pipeline, steps)?);
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
    }
    if pictures.is_empty() {
        return Err(Error::Distances(
            "a report wants at least one prompt and one seed".to_owned(),
        ));
    }
    let networks = questions.networks;
    let seen = networks.see_all(&pictures);
    let distances = questions
        .real
        .map(|real| between(&real.features, &seen.features, 0))
        .transpose()?;
    let of_clip = networks.clip.as_ref();
    let clip_score = of_clip.map(|clip| clip_score(clip, questions, &pictures)).transpose()?;
    let first_of_each = pictures.iter().step_by(questions.seeds as usize);
    let shown: Vec<Picture> = first_of_each.take(ON_SHEET).cloned().collect();
    Ok(Measured {
        model: name.to_owned(),
        steps,
        pictures: pictures.len(),
        latency_ms: median(&mut times),
        distances,
        patch_frechet: networks
            .patches
            .as_ref()
            .and(questions.real)
            .map(|real| frechet(&real.patches, &seen.patches)),
        cmmd: of_clip.and(questions.real).map(|real| cmmd(&real.clip, &seen.clip)),
        clip_score,
        diversity: diversity(&seen.features, questions.seeds as usize),
        sheet: contact_sheet(&shown, COLUMNS, 2),
    })
}

/// The mean over pictures, `questions.seeds` of each prompt.
fn clip_score(clip: &ClipNet, questions: &Questions, pictures: &[Picture]) -> Result<f64, Error> {
    let mut sum = 0.0;
    for (prompt, pictures) in questions.prompts.iter().zip(pictures.chunks(questions.seeds as usize)) {
        let words = clip.words(prompt)?;
        sum += pictures.iter().map(|picture| clip.score(picture, &words)).sum::<f64>();
    }
    Ok(sum / pictures.len() as f64)
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The mean distance of two of each `seeds` rows.
fn diversity(seen: &[Vec<f32>], seeds: usize) -> Option<f64> {
    let apart = |a: &[f32], b: &[f32]| -> f64 {
        let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
        squares.sum::<f64>().sqrt()
    };
    let groups = seen.chunks_exact(seeds.max(1));
    let pairs =
        groups.flat_map(|group| (0..group.len()).flat_map(move |i| (0..i).map(move |j| apart(&group[i], &group[j]))));
    let pairs: Vec<f64> = pairs.collect();
    (!pairs.is_empty()).then(|| pairs.iter().sum::<f64>() / pairs.len() as f64)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn report() -> Report {
        let measured = |model: &str, steps: usize, latency_ms: f64, frechet: f64| Measured {
            model: model.to_owned(),
            steps,
            pictures: 6,
            latency_ms,
            distances: Some(Distances {
                pictures: [6, 6],
                frechet,
                kernel: [0.1, 0.0],
                precision: 0.5,
                recall: 0.25,
            }),
            patch_frechet: (steps == 1).then_some(12.5),
            cmmd: None,
            clip_score: Some(26.25),
            diversity: Some(0.4),
            sheet: Picture {
                width: 4,
                height: 4,
                rgb: vec![90; 48],
            },
        };
        Report {
            features: "a network".to_owned(),
            prompts: 3,
            seeds: 2,
            real: Some(("pictures <of> birds".to_owned(), 6)),
            results: vec![
                measured("one & two", 1, 20.0, 0.9),
                measured("one & two", 4, 70.0, 0.5),
                measured("other", 1, 30.0, 0.7),
            ],
        }
    }

    #[test]
    fn diversity_is_the_mean_distance_within_a_prompt() {
        let seen = [[0.0f32, 0.0], [3.0, 4.0], [1.0, 1.0], [1.0, 1.0]].map(|row| row.to_vec());
        assert_eq!(diversity(&seen, 2), Some(2.5));
        assert_eq!(diversity(&seen, 1), None);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn the_numbers_are_json_without_the_pictures() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["results"][1]["distances"]["frechet"], 0.5);
        assert_eq!(
            (json["results"][0]["steps"].as_u64(), &json["results"][0]["sheet"]),
            (Some(1), &serde_json::Value::Null)
        );
    }
}
