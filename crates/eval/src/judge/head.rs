//! The part of the judge that is trained: from the feature network's maps to what is seen, in each cell and as a whole.
//!
//! The two maps, whose values have looked far around already, are brought to one width and added; two layers on say which thing a
//! cell of the finer map shows, in which colour. For what is said of the whole picture the same is done with the finer map averaged
//! to the coarser one's cells: attention from four learnt queries, the mean, and the feature network's own features.

use super::labels::{Answers, STYLES};
use crate::features::{COARSE, COARSE_CHANNELS, FINE, FINE_CHANNELS, Maps, POOLED};
use half::f16;
use prima_checkpoint::{Error, Init, ParamSource};
use prima_data::world::{Time, Weather};
use prima_tensor::{
    Activation, Param, Tensor, activation, add, attention, avg_pool_global, concat_channels, embedding, layer_norm,
    linear, mul,
};
use std::ops::Range;

/// Channels of a cell.
pub(crate) const WIDTH: usize = 128;
const QUERIES: usize = 4;
const HEADS: usize = 4;
const HIDDEN: usize = 384;
const EPS: f32 = 1e-5;
pub(crate) const CELLS: usize = FINE * FINE;

/// Where each answer's scores lie among a cell's, and among the whole picture's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Nothing, the everyday nouns, and any other thing.
    pub things: Range<usize>,
    pub nouns: Range<usize>,
    pub places: Range<usize>,
    pub times: Range<usize>,
    pub weathers: Range<usize>,
    pub styles: Range<usize>,
}

impl Layout {
    pub fn of(answers: &Answers) -> Self {
        let nouns = answers.nouns.len();
        let mut end = 0;
        let mut next = |len: usize| {
            end += len;
            end - len..end
        };
        Self {
            nouns: next(nouns),
            places: next(answers.places.len()),
            times: next(Time::ALL.len()),
            weathers: next(Weather::ALL.len()),
            styles: next(STYLES.len()),
            things: 0..nouns + 2,
        }
    }

    /// Scores of a cell.
    pub fn cell(&self) -> usize {
        self.things.end
    }

    /// Scores of a picture.
    pub fn whole(&self) -> usize {
        self.styles.end
    }
}

pub(crate) struct Linear {
    weight: Param,
    bias: Param,
}

impl Linear {
    pub fn new(source: &mut dyn ParamSource, name: &str, inputs: usize, outputs: usize) -> Result<Self, Error> {
        let init = Init::FanIn(inputs);
        Ok(Self {
            weight: source.param(&format!("{name}.weight"), &[outputs, inputs], init)?,
            bias: source.param(&format!("{name}.bias"), &[outputs], Init::Zeros)?,
        })
    }

    pub fn forward(&self, x: &Tensor, act: Activation) -> Tensor {
        linear(x, &self.weight, Some(&self.bias), act, None)
    }
}

struct Norm {
    gamma: Param,
    beta: Param,
}

impl Norm {
    fn new(source: &mut dyn ParamSource, name: &str) -> Result<Self, Error> {
        Ok(Self {
            gamma: source.param(&format!("{name}.weight"), &[WIDTH], Init::Ones)?,
            beta: source.param(&format!("{name}.bias"), &[WIDTH], Init::Zeros)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        activation(&layer_norm(x, &self.gamma, &self.beta, EPS), Activation::Silu)
    }
}

/// The head's parameters.
pub(crate) struct Head {
    fine: Linear,
    coarse: Linear,
    norm: Norm,
    second: Linear,
    second_norm: Norm,
    cells: Linear,
    queries: Param,
    hidden: Linear,
    whole: Linear,
}

/// Cells of the two maps, one above the other: `[n, FINE_CHANNELS + 2]` and `[n, COARSE_CHANNELS]`.
struct Places {
    fine: Tensor,
    coarse: Tensor,
}

impl Places {
    /// `at`: where in the picture a cell's middle lies, 0 to 1; it is told to the network.
    fn of(cells: impl Iterator<Item = (Vec<f32>, [f32; 2], Vec<f32>)>) -> Self {
        let (mut fine, mut coarse, mut count) = (Vec::new(), Vec::new(), 0);
        for (own, at, below) in cells {
            fine.extend(own);
            fine.extend(at.map(|v| 2.0 * v - 1.0));
            coarse.extend(below);
            count += 1;
        }
        Self {
            fine: Tensor::from_vec(fine, &[count, FINE_CHANNELS + 2]),
            coarse: Tensor::from_vec(coarse, &[count, COARSE_CHANNELS]),
        }
    }
}

/// Cells a side of the finer map in one of the coarser.
const ACROSS: usize = FINE / COARSE;

fn wide(values: &[f16]) -> Vec<f32> {
    values.iter().map(|v| v.to_f32()).collect()
}

fn coarse_cell(maps: &Maps, cell: usize) -> Vec<f32> {
    wide(&maps.coarse[cell * COARSE_CHANNELS..][..COARSE_CHANNELS])
}

/// The middle of cell `cell` of a map with `side` cells a side.
fn middle(cell: usize, side: usize) -> [f32; 2] {
    [cell % side, cell / side].map(|v| (v as f32 + 0.5) / side as f32)
}

/// A cell of the finer map as it is.
fn fine_place(maps: &Maps, cell: usize) -> (Vec<f32>, [f32; 2], Vec<f32>) {
    let own = wide(&maps.fine[cell * FINE_CHANNELS..][..FINE_CHANNELS]);
    let below = cell / FINE / ACROSS * COARSE + cell % FINE / ACROSS;
    (own, middle(cell, FINE), coarse_cell(maps, below))
}

/// A cell of the coarser map, and the mean of the finer one's cells there.
fn coarse_place(maps: &Maps, cell: usize) -> (Vec<f32>, [f32; 2], Vec<f32>) {
    let mut mean = vec![0.0f32; FINE_CHANNELS];
    let (top, left) = (cell / COARSE * ACROSS, cell % COARSE * ACROSS);
    for inner in 0..ACROSS * ACROSS {
        let from = (top + inner / ACROSS) * FINE + left + inner % ACROSS;
        for (mean, v) in mean.iter_mut().zip(&maps.fine[from * FINE_CHANNELS..][..FINE_CHANNELS]) {
            *mean += v.to_f32() / (ACROSS * ACROSS) as f32;
        }
    }
    (mean, middle(cell, COARSE), coarse_cell(maps, cell))
}

impl Head {
    /// Of what the whole picture is judged by: the feature network's features, the queries' answers and the mean.
    pub const SUMMARY: usize = POOLED + QUERIES * WIDTH + WIDTH;

    pub fn new(source: &mut dyn ParamSource, layout: &Layout) -> Result<Self, Error> {
        Ok(Self {
            fine: Linear::new(source, "fine", FINE_CHANNELS + 2, WIDTH)?,
            coarse: Linear::new(source, "coarse", COARSE_CHANNELS, WIDTH)?,
            norm: Norm::new(source, "norm")?,
            second: Linear::new(source, "second", WIDTH, WIDTH)?,
            second_norm: Norm::new(source, "second_norm")?,
            cells: Linear::new(source, "cells", WIDTH, layout.cell())?,
            queries: source.param("queries", &[QUERIES, WIDTH], Init::Normal(1.0))?,
            hidden: Linear::new(source, "hidden", Self::SUMMARY, HIDDEN)?,
            whole: Linear::new(source, "whole", Self::SUMMARY + HIDDEN, layout.whole())?,
        })
    }

    /// `[n, WIDTH]`.
    fn tokens(&self, places: &Places) -> Tensor {
        let coarse = self.coarse.forward(&places.coarse, Activation::None);
        let seen = add(&self.fine.forward(&places.fine, Activation::None), &coarse);
        let first = self.norm.forward(&seen);
        let second = self.second.forward(&first, Activation::None);
        self.second_norm.forward(&add(&second, &first))
    }

    /// Of these cells: their values `[n, WIDTH]`, and scores before softmax `[n, Layout::cell]`.
    pub fn cells<'a>(&self, cells: impl Iterator<Item = (&'a Maps, usize)>) -> (Tensor, Tensor) {
        let places = Places::of(cells.map(|(maps, cell)| fine_place(maps, cell)));
        let tokens = self.tokens(&places);
        let scores = self.cells.forward(&tokens, Activation::None);
        (tokens, scores)
    }

    /// Scores before softmax of whole pictures, `[B, Layout::whole]`. `dropout`: a mask `[B, SUMMARY]` of what they are judged by,
    /// in training.
    pub fn whole(&self, maps: &[&Maps], dropout: Option<&Tensor>) -> Tensor {
        let count = maps.len();
        let cells = maps
            .iter()
            .flat_map(|maps| (0..COARSE * COARSE).map(|cell| coarse_place(maps, cell)));
        let tokens = self
            .tokens(&Places::of(cells))
            .reshape(&[count, COARSE * COARSE, WIDTH]);
        let pooled = maps.iter().flat_map(|maps| wide(&maps.pooled)).collect();
        let ids: Vec<u32> = (0..count).flat_map(|_| 0..QUERIES as u32).collect();
        let queries = embedding(&self.queries, &ids, count);
        let answers = attention(&queries, &tokens, &tokens, HEADS, false).reshape(&[count, QUERIES * WIDTH]);
        let mean = avg_pool_global(&tokens.reshape(&[count, COARSE, COARSE, WIDTH]));
        let mut summary = concat_channels(&[&Tensor::from_vec(pooled, &[count, POOLED]), &answers, &mean]);
        if let Some(mask) = dropout {
            summary = mul(&summary, mask);
        }
        let hidden = self.hidden.forward(&summary, Activation::Silu);
        self.whole
            .forward(&concat_channels(&[&summary, &hidden]), Activation::None)
    }
}
