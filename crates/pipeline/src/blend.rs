//! A picture between two: on the way from one prompt to another, and from the noise of one seed to that of another.

use crate::{Conditioning, Error};
use prima_tensor::{Tensor, stack_batch, weighted_sum};
use serde::Deserialize;

/// What a picture is on its way to.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blend {
    /// How much of the way is behind it, 0 to 1.
    pub share: f64,
    /// The prompt at the end of the way; `None`: the request's own.
    pub prompt: Option<String>,
    /// The seed there (the web UI's variation seed, whose strength the share is); `None`: the request's own.
    pub seed: Option<u64>,
}

impl Blend {
    pub(crate) fn check(&self) -> Result<(), Error> {
        if (0.0..=1.0).contains(&self.share) {
            return Ok(());
        }
        Err(Error::request("blend.share", self.share, "use 0 to 1"))
    }
}

/// Conditioning between two, in equal parts of both's numbers. `filler` is an empty prompt's, which makes the shorter one longer, where
/// one is.
pub(crate) fn between(
    from: &Conditioning,
    to: &Conditioning,
    share: f64,
    filler: Option<&Conditioning>,
) -> Conditioning {
    let length = from.length().max(to.length());
    let mix = |a: &Tensor, b: &Tensor| weighted_sum(&[(1.0 - share, a), (share, b)]);
    let [a, b] = [from, to].map(|one| match filler {
        Some(filler) => filled(&one.prompt_embeds, length, &filler.prompt_embeds),
        None => one.prompt_embeds.clone(),
    });
    let pooled = from.pooled_prompt_embeds.as_ref().zip(to.pooled_prompt_embeds.as_ref());
    let mut unknown_words = from.unknown_words.clone();
    let others = to
        .unknown_words
        .iter()
        .filter(|word| !from.unknown_words.contains(word));
    unknown_words.extend(others.cloned());
    Conditioning {
        prompt_embeds: mix(&a, &b),
        pooled_prompt_embeds: pooled.map(|(a, b)| mix(a, b)),
        dropped: if from.dropped.is_empty() {
            &to.dropped
        } else {
            &from.dropped
        }
        .clone(),
        unknown_words,
    }
}

/// `[1, L, C]` with further chunks of `filler` up to `length`.
fn filled(states: &Tensor, length: usize, filler: &Tensor) -> Tensor {
    let (own, chunk) = (states.dim(1), filler.dim(1));
    if own == length || chunk == 0 {
        return states.clone();
    }
    let chunks = (length - own).div_ceil(chunk);
    let all = [&[states][..], &vec![filler; chunks]].concat();
    // Rows of one chunk's length side by side are one row of all.
    let rows: Vec<Tensor> = all
        .iter()
        .map(|part| part.reshape(&[part.dim(1), part.dim(2)]))
        .collect();
    let whole = stack_batch(&rows.iter().collect::<Vec<_>>());
    whole.reshape(&[1, whole.dim(0), whole.dim(1)])
}

/// Noise between two of one shape, `[images, channels, height, width]`: spherically, each column of the picture by its own angle, as
/// the web UI does it (`modules/rng.py`); straight where they are nearly the same.
pub(crate) fn spherical(from: &Tensor, to: &Tensor, share: f64) -> Tensor {
    let &[n, c, h, w] = from.shape() else {
        return from.clone();
    };
    let (a, b) = (from.data(), to.data());
    let mut out = vec![0.0; a.len()];
    let at = |plane: usize, y: usize, x: usize| (plane * h + y) * w + x;
    for image in 0..n {
        let planes = image * c..(image + 1) * c;
        let columns = || planes.clone().flat_map(|plane| (0..w).map(move |x| (plane, x)));
        let cosine = |(plane, x): (usize, usize)| {
            let of = |p: &[f32], q: &[f32]| -> f64 {
                (0..h)
                    .map(|y| f64::from(p[at(plane, y, x)]) * f64::from(q[at(plane, y, x)]))
                    .sum()
            };
            of(a, b) / (of(a, a) * of(b, b)).sqrt().max(1e-12)
        };
        let cosines: Vec<f64> = columns().map(cosine).collect();
        let mean = cosines.iter().sum::<f64>() / (c * w).max(1) as f64;
        for (column, cosine) in columns().zip(&cosines) {
            let angle = cosine.clamp(-1.0, 1.0).acos();
            let [low, high] = if mean > 0.9995 || angle.sin() == 0.0 {
                [1.0 - share, share]
            } else {
                [((1.0 - share) * angle).sin(), (share * angle).sin()].map(|part| part / angle.sin())
            };
            for y in 0..h {
                let i = at(column.0, y, column.1);
                out[i] = (low * f64::from(a[i]) + high * f64::from(b[i])) as f32;
            }
        }
    }
    Tensor::from_vec(out, from.shape())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_between_two_noises_begins_and_ends_at_them_and_keeps_their_size() {
        let noise = |seed| {
            let first = prima_tensor::Philox {
                seed,
                image: 0,
                purpose: 0,
                step: 0,
            };
            first.normal_batch(&[1, 4, 32, 32])
        };
        let (a, b) = (noise(1), noise(2));
        let deviation = |t: &Tensor| {
            let data = t.data();
            (data.iter().map(|v| v * v).sum::<f32>() / data.len() as f32).sqrt()
        };
        let apart = |x: &Tensor, y: &Tensor| {
            let (x, y) = (x.data(), y.data());
            x.iter().zip(y.iter()).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
        };
        assert!(apart(&spherical(&a, &b, 0.0), &a) < 1e-6 && apart(&spherical(&a, &b, 1.0), &b) < 1e-6);
        let middle = deviation(&spherical(&a, &b, 0.5));
        assert!((middle - 1.0).abs() < 0.05, "{middle}: a straight way would have 0.71");
        assert!(apart(&spherical(&a, &a, 0.3), &a) < 1e-6);
    }
}
