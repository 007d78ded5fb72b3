//! Contact sheets: many samples of a kind side by side.

use super::{Kind, SIZES, World};
use prima_picture::{Picture, contact_sheet};

/// A sheet of samples.
#[derive(Debug)]
pub struct Sheet {
    pub picture: Picture,
    pub captions: Vec<String>,
    /// Mean time of one sample on one core, ms.
    pub sample_ms: f64,
}

/// Draws samples `0..count` of a kind (`None`: of the training mix), `columns` in a row.
pub fn sheet(world: &World, kind: Option<Kind>, seed: u64, count: usize, columns: usize) -> Sheet {
    let start = std::time::Instant::now();
    let samples = (0..count as u64).map(|number| match kind {
        Some(kind) => world.sample_of(kind, seed, number, SIZES[0]),
        None => world.sample(seed, number),
    });
    let (pictures, captions): (Vec<Picture>, Vec<String>) = samples
        .map(|sample| {
            let picture = Picture {
                width: sample.width,
                height: sample.height,
                rgb: sample.rgb,
            };
            (picture, sample.caption)
        })
        .unzip();
    let sample_ms = start.elapsed().as_secs_f64() * 1000.0 / count.max(1) as f64;
    Sheet {
        picture: contact_sheet(&pictures, columns, 0),
        captions,
        sample_ms,
    }
}
