//! Prompts for parts of a picture: the network answers each, and each answer counts where its part is.

use crate::Error;
use prima_tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// A part of the picture with a prompt of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    pub prompt: String,
    /// Left, top, right and bottom as shares of the picture's sides, 0 to 1.
    pub area: [f64; 4],
    /// How much of what is painted there is this prompt's, 0 to 1; the rest is the picture's own prompt's.
    #[serde(default = "all_of_it")]
    pub share: f64,
}

/// Most of one picture: each takes a network evaluation a step.
pub const MAX_REGIONS: usize = 8;

fn all_of_it() -> f64 {
    1.0
}

impl Region {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let [left, top, right, bottom] = self.area;
        let is_inside = self.area.iter().all(|side| (0.0..=1.0).contains(side));
        if !is_inside || left >= right || top >= bottom {
            let fix = "use left, top, right and bottom from 0 to 1, such as 0,0,0.5,1";
            return Err(Error::request("region", format!("{:?}", self.area), fix));
        }
        if !(0.0..=1.0).contains(&self.share) {
            return Err(Error::request("region.share", self.share, "use 0 to 1"));
        }
        Ok(())
    }

    /// How much of each of `height` x `width` latent pixels is the region's.
    fn cover(&self, height: usize, width: usize) -> Vec<f32> {
        let [left, top, right, bottom] = self.area;
        let along = |from: f64, to: f64, length: usize| -> Vec<f64> {
            let (from, to) = (from * length as f64, to * length as f64);
            let inside = |i: usize| (to.min(i as f64 + 1.0) - from.max(i as f64)).clamp(0.0, 1.0);
            (0..length).map(inside).collect()
        };
        let (rows, columns) = (along(top, bottom, height), along(left, right, width));
        let pixels = rows.iter().flat_map(|y| columns.iter().map(move |x| x * y));
        pixels.map(|covered| (covered * self.share) as f32).collect()
    }
}

/// `0,0,0.5,1:a cat`: left, top, right and bottom, and the prompt.
impl FromStr for Region {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || "use LEFT,TOP,RIGHT,BOTTOM:PROMPT, shares of the picture's sides, such as 0,0,0.5,1:a cat".to_owned();
        let (area, prompt) = text.split_once(':').ok_or_else(wrong)?;
        let sides: Result<Vec<f64>, _> = area.split(',').map(|side| side.trim().parse()).collect();
        let area = sides.ok().and_then(|sides| sides.try_into().ok()).ok_or_else(wrong)?;
        let region = Self {
            prompt: prompt.trim().to_owned(),
            area,
            share: all_of_it(),
        };
        region.check().map_err(|error| error.to_string())?;
        Ok(region)
    }
}

/// What is left of the picture's own prompt where a region takes all.
const LEAST_REST: f32 = 1e-6;

/// One answer, `[images, h, w, C]`, of those to the picture's own prompt and to each region's. Where regions overlap, each weighs
/// against the picture's own what it would weigh alone.
pub(crate) fn joined(regions: &[Region], answers: &[Tensor]) -> Tensor {
    let [own, parts @ ..] = answers else {
        unreachable!("a picture has a prompt");
    };
    let &[images, height, width, channels] = own.shape() else {
        unreachable!("latents have four dimensions");
    };
    // A share s of the whole is s / (1 - s) times the rest.
    let weight = |share: f32| share / (1.0 - share).max(LEAST_REST);
    let weights: Vec<Vec<f32>> = regions
        .iter()
        .map(|region| region.cover(height, width).into_iter().map(weight).collect())
        .collect();
    let mut out = own.clone().into_vec();
    let parts: Vec<Vec<f32>> = parts.iter().map(|part| part.clone().into_vec()).collect();
    for (place, values) in out.chunks_mut(channels).enumerate() {
        let pixel = place % (height * width);
        let all: f32 = 1.0 + weights.iter().map(|weights| weights[pixel]).sum::<f32>();
        for (channel, value) in values.iter_mut().enumerate() {
            let of_parts = weights.iter().zip(&parts);
            let of_parts = of_parts.map(|(weights, part)| weights[pixel] * part[place * channels + channel]);
            *value = (*value + of_parts.sum::<f32>()) / all;
        }
    }
    Tensor::from_vec(out, &[images, height, width, channels])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(area: [f64; 4], share: f64) -> Region {
        Region {
            prompt: "a cat".to_owned(),
            area,
            share,
        }
    }

    #[test]
    fn each_answer_counts_where_its_region_is_and_shares_where_they_overlap() {
        let flat = |value: f32| Tensor::from_vec(vec![value; 2 * 4 * 4 * 3], &[2, 4, 4, 3]);
        let regions = [region([0.0, 0.0, 0.5, 1.0], 1.0), region([0.25, 0.0, 0.625, 0.5], 0.5)];
        let out = joined(&regions, &[flat(1.0), flat(10.0), flat(100.0)]).into_vec();
        let at = |image: usize, y: usize, x: usize| out[((image * 4 + y) * 4 + x) * 3 + 1];
        for image in 0..2 {
            assert!((at(image, 0, 0) - 10.0).abs() < 1e-4);
            // One takes all, one as much as the picture's own prompt.
            assert!((at(image, 0, 1) - 10.0).abs() < 1e-3);
            // Half of the pixel, half of its share.
            assert!((at(image, 1, 2) - (0.75 + 25.0)).abs() < 1e-4);
            assert_eq!(at(image, 3, 2), 1.0);
            assert_eq!(at(image, 0, 3), 1.0);
        }
    }

    #[test]
    fn what_is_no_part_of_a_picture_is_refused() {
        for area in [[0.5, 0.0, 0.5, 1.0], [0.0, 0.0, 1.5, 1.0], [f64::NAN, 0.0, 1.0, 1.0]] {
            assert!(region(area, 1.0).check().is_err(), "{area:?}");
        }
        assert!(region([0.0, 0.0, 1.0, 1.0], 1.5).check().is_err());
        let read: Region = "0, 0,0.5,1: a cat, black: white".parse().unwrap();
        assert_eq!(read.prompt, "a cat, black: white");
        assert_eq!(read.area, [0.0, 0.0, 0.5, 1.0]);
        for text in ["a cat", "0,0,1:a cat", "0,0,2,1:a cat"] {
            assert!(text.parse::<Region>().is_err(), "{text}");
        }
    }
}
