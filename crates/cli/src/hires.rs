//! `--hires`: the picture is enlarged, and painted over in tiles of its first size.

use crate::bar::Bar;
use crate::{Usage, source};
use anyhow::Result;
use prima_finish::Upscaler;
use prima_pipeline::{InitImage, Picture, Pipeline, Request, ScheduleOptions};
use prima_tensor::DType;
use std::ops::ControlFlow;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// Enlarge the picture N times each way (2 to 8), and paint over it in tiles of its first size
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=8))]
    hires: Option<u8>,
    /// How much of the enlarged picture is painted anew, 0 to 1; 0 leaves it as the upscaler makes it [default: 0.3 with models
    /// of 512 px and more, else 0]
    #[arg(long, value_name = "X", requires = "hires")]
    hires_strength: Option<f64>,
    /// An upscaler as `prima upscale --model` takes it [default: the one in the binary]
    #[arg(long, value_name = "FILE", requires = "hires")]
    hires_upscaler: Option<PathBuf>,
}

/// Share of a tile that it has in common with the next at least.
const SHARED: usize = 4;
/// What is painted anew by default, and the size of the smallest models that it does good: smaller ones paint all of the words
/// into every tile.
const STRENGTH: f64 = 0.3;
const STRENGTH_FROM_PX: usize = 512;

/// What enlarges and paints over.
pub struct Hires {
    scale: usize,
    /// As it was asked for.
    strength: Option<f64>,
    upscaler: Upscaler,
}

impl Args {
    /// What is asked for, if anything is.
    pub fn open(&self) -> Result<Option<Hires>> {
        let Some(scale) = self.hires.map(usize::from) else {
            return Ok(None);
        };
        if let Some(strength) = self.hires_strength.filter(|strength| !(0.0..=1.0).contains(strength)) {
            return Err(Usage(format!("--hires-strength {strength} is not possible: use 0 to 1")).into());
        }
        let upscaler = match &self.hires_upscaler {
            Some(file) => {
                source::check_there(file)?;
                Upscaler::open(file, DType::F32)?
            }
            None => Upscaler::embedded(DType::F32)?,
        };
        Ok(Some(Hires {
            scale,
            strength: self.hires_strength,
            upscaler,
        }))
    }
}

impl Hires {
    /// The picture that `request` painted, larger. Every tile has noise of its own.
    pub fn paint(&self, pipeline: &Pipeline, request: &Request, picture: &Picture, bar: &Bar) -> Result<Picture> {
        let (width, height) = (picture.width, picture.height);
        let (large_width, large_height) = (width * self.scale, height * self.scale);
        let go_on = &mut |progress| {
            bar.part(progress);
            ControlFlow::Continue(())
        };
        let layer = self
            .upscaler
            .enlarge(&picture.clone().into(), large_width, large_height, go_on)?;
        let mut large = layer.picture;
        let strength = self.strength(pipeline);
        if strength == 0.0 {
            return Ok(large);
        }
        let (rows, columns) = (starts(large_height, height), starts(large_width, width));
        for (i, (row, column)) in rows
            .iter()
            .flat_map(|row| columns.iter().map(move |column| (row, column)))
            .enumerate()
        {
            bar.part(prima_finish::Progress {
                done: i,
                total: rows.len() * columns.len(),
            });
            let again = self.request(
                pipeline,
                request,
                cut(&large, [row.at, column.at], [width, height]),
                i as u64,
            );
            let made = pipeline.paint(&again, &mut |_| ControlFlow::Continue(()))?;
            if let Some(tile) = made.pictures.first() {
                put(&mut large, tile, row, column);
            }
        }
        Ok(large)
    }

    fn strength(&self, pipeline: &Pipeline) -> f64 {
        let is_large = pipeline.defaults().width >= STRENGTH_FROM_PX;
        self.strength.unwrap_or(if is_large { STRENGTH } else { 0.0 })
    }

    fn request(&self, pipeline: &Pipeline, first: &Request, tile: Picture, number: u64) -> Request {
        let strength = self.strength(pipeline);
        let steps = first
            .schedule
            .num_inference_steps
            .unwrap_or(pipeline.defaults().num_inference_steps);
        // A schedule of few steps is made as long as it takes for one of them to be left.
        let least = (1.0 / strength).ceil() as usize;
        Request {
            seed: first.seed.wrapping_add(1 + number),
            width: Some(tile.width),
            height: Some(tile.height),
            num_images: 1,
            schedule: ScheduleOptions {
                num_inference_steps: Some(steps.max(least)),
                timesteps: None,
                ..first.schedule.clone()
            },
            denoising_start: None,
            denoising_end: None,
            init_image: Some(InitImage {
                picture: tile,
                strength: Some(strength),
            }),
            ..first.clone()
        }
    }

    /// For the picture's `parameters`, as the web UI writes it.
    pub fn fields(&self, pipeline: &Pipeline) -> [(&'static str, String); 3] {
        [
            ("Hires upscale", self.scale.to_string()),
            ("Hires upscaler", self.upscaler.name().to_owned()),
            ("Hires strength", self.strength(pipeline).to_string()),
        ]
    }
}

/// Where a tile begins along a side, and how much of it is also in the tile before.
#[derive(Debug, PartialEq)]
struct Start {
    at: usize,
    shared: usize,
}

/// Tiles of `side` pixels that cover `length` evenly.
fn starts(length: usize, side: usize) -> Vec<Start> {
    let least = side / SHARED;
    let count = length.saturating_sub(least).div_ceil(side - least).max(1);
    let at = |i: usize| (length - side) * i / (count - 1).max(1);
    let start = |i: usize| Start {
        at: at(i),
        shared: if i == 0 { 0 } else { at(i - 1) + side - at(i) },
    };
    (0..count).map(start).collect()
}

impl Start {
    /// How much of the tile counts at its pixel `at`: from none to all over the middle half of what it shares.
    fn weight(&self, at: usize) -> f32 {
        let shared = self.shared as f32;
        if self.shared == 0 {
            return 1.0;
        }
        ((at as f32 + 0.5 - shared / 4.0) / (shared / 2.0)).clamp(0.0, 1.0)
    }
}

fn cut(picture: &Picture, [top, left]: [usize; 2], [width, height]: [usize; 2]) -> Picture {
    let row = |y: usize| &picture.rgb[((top + y) * picture.width + left) * 3..][..width * 3];
    Picture {
        width,
        height,
        rgb: (0..height).flat_map(row).copied().collect(),
    }
}

fn put(into: &mut Picture, tile: &Picture, row: &Start, column: &Start) {
    for y in 0..tile.height {
        let first = ((row.at + y) * into.width + column.at) * 3;
        let there = into.rgb[first..][..tile.width * 3].as_chunks_mut::<3>().0;
        let new = tile.rgb[y * tile.width * 3..].as_chunks::<3>().0;
        for (x, (there, new)) in there.iter_mut().zip(new).enumerate() {
            let weight = row.weight(y) * column.weight(x);
            for (there, new) in there.iter_mut().zip(new) {
                let (a, b) = (f32::from(*there), f32::from(*new));
                *there = (a + (b - a) * weight).round() as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_a_side_evenly_and_share_a_quarter() {
        assert_eq!(starts(64, 64), [Start { at: 0, shared: 0 }]);
        for (length, side) in [(128, 64), (2048, 512), (1000, 256)] {
            let starts = starts(length, side);
            assert_eq!(starts.last().map(|start| start.at + side), Some(length));
            assert!(
                starts[1..].iter().all(|start| start.shared >= side / SHARED),
                "{starts:?}"
            );
        }
    }

    #[test]
    fn a_tile_fades_into_the_one_before() {
        let mut picture = Picture {
            width: 8,
            height: 1,
            rgb: vec![0; 24],
        };
        let tile = Picture {
            width: 6,
            height: 1,
            rgb: vec![200; 18],
        };
        let column = Start { at: 2, shared: 4 };
        put(&mut picture, &tile, &Start { at: 0, shared: 0 }, &column);
        let row: Vec<u8> = picture.rgb.iter().step_by(3).copied().collect();
        assert_eq!(row, [0, 0, 0, 50, 150, 200, 200, 200]);
    }
}
