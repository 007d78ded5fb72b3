//! Ops on parts of a picture, for networks that work on one band of rows after the other because the whole takes too much
//! memory. For inference on the CPU: they leave the tape.

use crate::cpu::norm::{self as kernel, Geometry, Statistics};
use crate::cpu::parallel::for_chunks;
use crate::{Param, Tensor};
use std::ops::Range;

/// Rows of `[1, H, W, C]`.
pub type Piece<'a> = (&'a Tensor, Range<usize>);

/// Mean and spread of the groups of channels of one picture.
pub struct GroupStatistics {
    statistics: Statistics,
    geometry: Geometry,
}

fn row_values(x: &Tensor) -> usize {
    assert!(
        x.dim(0) == 1 && x.shape().len() == 4,
        "a band is [1, H, W, C], not {:?}",
        x.shape()
    );
    x.dim(2) * x.dim(3)
}

fn values<'a>((x, rows): &Piece<'a>) -> &'a [f32] {
    let row = row_values(x);
    &x.data()[rows.start * row..rows.end * row]
}

fn stacked(pieces: &[Piece], data: Vec<f32>) -> Tensor {
    let (width, channels) = (pieces[0].0.dim(2), pieces[0].0.dim(3));
    let rows = pieces.iter().map(|(_, rows)| rows.len()).sum();
    Tensor::from_vec(data, &[1, rows, width, channels])
}

impl GroupStatistics {
    /// Of the picture whose bands are `bands`, one below the other, all of one width.
    pub fn of(bands: &[&Tensor], groups: usize, eps: f32) -> Self {
        let channels = bands[0].dim(3);
        let parts: Vec<&[f32]> = bands.iter().map(|band| band.data()).collect();
        let geometry = Geometry {
            batch: 1,
            rows: parts.iter().map(|part| part.len()).sum::<usize>() / channels,
            channels,
            groups,
        };
        Self {
            statistics: kernel::group_statistics_of_bands(&parts, geometry, eps),
            geometry,
        }
    }

    /// [`group_norm`](crate::group_norm) and SiLU of some rows of that picture, one below the other.
    pub fn silu(&self, pieces: &[Piece], gamma: &Param, beta: &Param) -> Tensor {
        let (gamma, beta) = (gamma.tensor(), beta.tensor());
        let parts: Vec<&[f32]> = pieces.iter().map(values).collect();
        let (s, g) = (&self.statistics, self.geometry);
        let data = kernel::group_norm_of_pieces(&parts, s, g, gamma.data(), beta.data(), true);
        stacked(pieces, data)
    }
}

/// Pieces of one width as one picture.
pub fn stack_rows(pieces: &[Piece]) -> Tensor {
    let data = pieces.iter().map(values).collect::<Vec<_>>().concat();
    stacked(pieces, data)
}

/// `rows` of `x`, and `residual` added where there is one: `[1, rows, W, C]`.
pub fn rows_plus(x: &Tensor, rows: Range<usize>, residual: Option<&Tensor>) -> Tensor {
    let piece = (x, rows);
    let Some(residual) = residual else {
        return stack_rows(&[piece]);
    };
    let mut data = values(&piece).to_vec();
    assert_eq!(data.len(), residual.numel(), "a residual has the shape of the rows");
    for_chunks(&mut data, |at, part| {
        let added = &residual.data()[at..at + part.len()];
        part.iter_mut().zip(added).for_each(|(x, r)| *x += r);
    });
    stacked(&[piece], data)
}
