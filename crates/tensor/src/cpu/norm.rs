//! Group and layer normalisation over channels-last rows.

use super::activation::silu_derivative;
use super::math::{dispatch, mul_add, sigmoid};
use super::parallel;
use crate::allocator::room;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Rows whose sums are kept in f32 before they are folded into f64.
const BLOCK: usize = 32;

/// Geometry of a GroupNorm call: `batch` samples of `rows` rows of `channels` values.
#[derive(Clone, Copy)]
pub(crate) struct Geometry {
    pub batch: usize,
    pub rows: usize,
    pub channels: usize,
    pub groups: usize,
}

impl Geometry {
    fn sample(self) -> usize {
        self.rows * self.channels
    }

    fn per_group(self) -> usize {
        self.channels / self.groups
    }

    /// Values behind one mean.
    fn count(self) -> f64 {
        (self.rows * self.per_group()) as f64
    }

    /// `f(sample, rows of the task)`, the results grouped by sample.
    fn map_row_tasks<T: Send>(self, f: impl Fn(usize, std::ops::Range<usize>) -> T + Sync + Send) -> Vec<T> {
        let per_task = parallel::rows_per_task(self.channels);
        let tasks = self.tasks_per_sample();
        parallel::map_tasks(self.batch * tasks, self.batch * self.sample(), |task| {
            let first = task % tasks * per_task;
            f(task / tasks, first..(first + per_task).min(self.rows))
        })
    }

    fn tasks_per_sample(self) -> usize {
        self.rows.div_ceil(parallel::rows_per_task(self.channels))
    }
}

/// Mean and `1 / sqrt(variance + eps)` of each group of each sample.
#[derive(Clone, Default)]
pub(crate) struct Statistics {
    pub mean: Vec<f64>,
    pub rstd: Vec<f64>,
}

/// Adds to `first` and `second` (per channel) the sums of `x - shift` and `(x - shift)²`.
#[inline(always)]
fn moments_body<const FMA: bool>(x: &[f32], shift: &[f32], first: &mut [f64], second: &mut [f64]) {
    let channels = shift.len();
    let mut sums = vec![0.0f32; 2 * channels];
    for block in x.chunks(BLOCK * channels) {
        sums.fill(0.0);
        let (s1, s2) = sums.split_at_mut(channels);
        for row in block.chunks_exact(channels) {
            for (((s1, s2), &v), &shift) in s1.iter_mut().zip(s2.iter_mut()).zip(row).zip(shift) {
                let d = v - shift;
                *s1 += d;
                *s2 = mul_add::<FMA>(d, d, *s2);
            }
        }
        for (total, &s) in first.iter_mut().zip(s1.iter()) {
            *total += f64::from(s);
        }
        for (total, &s) in second.iter_mut().zip(s2.iter()) {
            *total += f64::from(s);
        }
    }
}

dispatch! {
    fn wide_moments(x: &[f32], shift: &[f32], first: &mut [f64], second: &mut [f64]) = moments_body
}

fn moments(x: &[f32], shift: &[f32], first: &mut [f64], second: &mut [f64]) {
    let (fold, whole) = folding(x.len(), shift.len());
    if fold > 1 {
        let (mut wide_first, mut wide_second) = (vec![0.0; fold * shift.len()], vec![0.0; fold * shift.len()]);
        wide_moments(&x[..whole], &shift.repeat(fold), &mut wide_first, &mut wide_second);
        add_folded(first, &wide_first);
        add_folded(second, &wide_second);
    }
    wide_moments(&x[whole..], shift, first, second);
}

/// How many rows of `channels` values are worked on as one, and how many values such wide rows
/// cover: a row much narrower than [`SPAN`] would leave most of the vector lanes idle.
fn folding(len: usize, channels: usize) -> (usize, usize) {
    let fold = (SPAN / channels).max(1);
    if fold == 1 {
        (1, 0)
    } else {
        (fold, len / (fold * channels) * (fold * channels))
    }
}

/// Adds the sums of rows that were worked on as one to those of a single row.
fn add_folded(sums: &mut [f64], wide: &[f64]) {
    for part in wide.chunks_exact(sums.len()) {
        sums.iter_mut().zip(part).for_each(|(s, v)| *s += v);
    }
}

/// The statistics of `x`. Each channel is shifted by its first value, so that a mean far from
/// zero costs no digits, and the channels of a group are combined in f64.
pub(crate) fn group_statistics(x: &[f32], g: Geometry, eps: f32) -> Statistics {
    let c = g.channels;
    let shift_of = |b: usize| &x[b * g.sample()..b * g.sample() + c];
    let parts = g.map_row_tasks(|b, rows| {
        let at = b * g.sample();
        sums_of_rows(&x[at + rows.start * c..at + rows.end * c], shift_of(b))
    });
    let mut statistics = Statistics::default();
    for (b, parts) in parts.chunks(g.tasks_per_sample()).enumerate() {
        statistics.add_sample(g, shift_of(b), &add_parts(parts), eps);
    }
    statistics
}

/// The statistics of one sample that comes in bands of rows, one below the other: to the bit those of the whole, if all bands
/// but the last have as many rows as whole tasks take.
pub(crate) fn group_statistics_of_bands(bands: &[&[f32]], g: Geometry, eps: f32) -> Statistics {
    let c = g.channels;
    let shift = &bands[0][..c];
    let parts = bands.iter().flat_map(|band| {
        let rows = band.len() / c;
        let sums = |_, rows: std::ops::Range<usize>| sums_of_rows(&band[rows.start * c..rows.end * c], shift);
        Geometry { batch: 1, rows, ..g }.map_row_tasks(sums)
    });
    let parts: Vec<Vec<f64>> = parts.collect();
    let mut statistics = Statistics::default();
    statistics.add_sample(g, shift, &add_parts(&parts), eps);
    statistics
}

/// Per channel the sums of `x - shift`, and behind them those of the squares.
fn sums_of_rows(x: &[f32], shift: &[f32]) -> Vec<f64> {
    let mut sums = vec![0.0f64; 2 * shift.len()];
    let (first, second) = sums.split_at_mut(shift.len());
    moments(x, shift, first, second);
    sums
}

impl Statistics {
    /// Those of a sample whose rows have these sums.
    fn add_sample(&mut self, g: Geometry, shift: &[f32], sums: &[f64], eps: f32) {
        let (c, rows) = (g.channels, g.rows as f64);
        for group in 0..g.groups {
            let channels = group * g.per_group()..(group + 1) * g.per_group();
            let mean_of = |i: usize| f64::from(shift[i]) + sums[i] / rows;
            let mean = channels.clone().map(mean_of).sum::<f64>() / g.per_group() as f64;
            // Variance within each channel plus that between the channels' means.
            let squares: f64 = channels
                .map(|i| {
                    let within = (sums[c + i] - sums[i] * sums[i] / rows).max(0.0);
                    within + rows * (mean_of(i) - mean).powi(2)
                })
                .sum();
            self.mean.push(mean);
            self.rstd.push(1.0 / (squares / g.count() + f64::from(eps)).sqrt());
        }
    }
}

fn add_parts(parts: &[Vec<f64>]) -> Vec<f64> {
    let mut total = parts[0].clone();
    for part in &parts[1..] {
        total.iter_mut().zip(part).for_each(|(t, v)| *t += v);
    }
    total
}

/// The whole op for one sample as `y = x · scale[c] + offset[c]`.
fn scale_offset(s: &Statistics, g: Geometry, b: usize, gamma: &[f32], beta: &[f32]) -> (Vec<f32>, Vec<f32>) {
    (0..g.channels)
        .map(|c| {
            let group = b * g.groups + c / g.per_group();
            let scale = s.rstd[group] * f64::from(gamma[c]);
            (scale as f32, (f64::from(beta[c]) - s.mean[group] * scale) as f32)
        })
        .unzip()
}

/// Most channels worked on at a time.
const SPAN: usize = 64;

/// Channels are worked on some at a time, in local arrays of known size: the compiler then knows that nothing overlaps, and
/// copies without a call. `$f::<FMA, N>` gets the first of them and their number, which is N but at the end.
macro_rules! in_spans {
    ($channels:expr, $f:ident($($argument:expr),*)) => {
        let (channels, mut first) = ($channels, 0);
        while first < channels {
            first += match channels - first {
                SPAN.. => $f::<FMA, SPAN>($($argument,)* first, SPAN),
                32.. => $f::<FMA, 32>($($argument,)* first, 32),
                16.. => $f::<FMA, 16>($($argument,)* first, 16),
                rest => $f::<FMA, 16>($($argument,)* first, rest),
            };
        }
    };
}

/// A copy of `x[at..at + count]`, zeros behind it.
#[inline(always)]
fn span<const N: usize>(x: &[f32], at: usize, count: usize) -> [f32; N] {
    let mut out = [0.0; N];
    out[..count].copy_from_slice(&x[at..at + count]);
    out
}

/// Values of as many channels: `x · scale + offset`, and SiLU of the first `count`.
#[inline(always)]
fn scaled<const FMA: bool, const N: usize>(
    mut x: [f32; N],
    count: usize,
    [scale, offset]: [&[f32; N]; 2],
    silu: bool,
) -> [f32; N] {
    for ((x, &a), &b) in x.iter_mut().zip(scale).zip(offset) {
        *x = mul_add::<FMA>(*x, a, b);
    }
    if silu {
        for x in &mut x[..count] {
            *x *= sigmoid::<FMA>(*x);
        }
    }
    x
}

/// A row of values, and where its results go.
trait Row {
    fn values(&self) -> &[f32];

    /// Results from channel `first` on.
    fn put(&mut self, first: usize, results: &[f32]);
}

impl Row for (&[f32], &mut [MaybeUninit<f32>]) {
    #[inline(always)]
    fn values(&self) -> &[f32] {
        self.0
    }

    #[inline(always)]
    fn put(&mut self, first: usize, results: &[f32]) {
        self.1[first..first + results.len()].write_copy_of_slice(results);
    }
}

/// In its place.
impl Row for &mut [f32] {
    #[inline(always)]
    fn values(&self) -> &[f32] {
        self
    }

    #[inline(always)]
    fn put(&mut self, first: usize, results: &[f32]) {
        self[first..first + results.len()].copy_from_slice(results);
    }
}

#[inline(always)]
fn apply_span<const FMA: bool, const N: usize>(
    rows: impl Iterator<Item: Row>,
    scale: &[f32],
    offset: &[f32],
    silu: bool,
    first: usize,
    count: usize,
) -> usize {
    let (scale, offset) = (span::<N>(scale, first, count), span::<N>(offset, first, count));
    for mut row in rows {
        let z = scaled::<FMA, N>(span(row.values(), first, count), count, [&scale, &offset], silu);
        row.put(first, &z[..count]);
    }
    count
}

#[inline(always)]
fn apply_body<const FMA: bool>(x: &[f32], out: &mut [MaybeUninit<f32>], scale: &[f32], offset: &[f32], silu: bool) {
    let c = scale.len();
    in_spans!(
        c,
        apply_span(x.chunks_exact(c).zip(out.chunks_exact_mut(c)), scale, offset, silu)
    );
}

dispatch! {
    fn wide_apply(x: &[f32], out: &mut [MaybeUninit<f32>], scale: &[f32], offset: &[f32], silu: bool) = apply_body
}

fn apply(x: &[f32], out: &mut [MaybeUninit<f32>], scale: &[f32], offset: &[f32], silu: bool) {
    let (fold, whole) = folding(x.len(), scale.len());
    if fold > 1 {
        wide_apply(
            &x[..whole],
            &mut out[..whole],
            &scale.repeat(fold),
            &offset.repeat(fold),
            silu,
        );
    }
    wide_apply(&x[whole..], &mut out[whole..], scale, offset, silu);
}

/// Second pass of the forward: normalise, scale, shift, SiLU.
pub(crate) fn group_norm(x: &[f32], s: &Statistics, g: Geometry, gamma: &[f32], beta: &[f32], silu: bool) -> Vec<f32> {
    let mut out = room(x.len());
    let samples = out.spare_capacity_mut()[..x.len()].par_chunks_mut(g.sample());
    samples.enumerate().for_each(|(b, out)| {
        let (scale, offset) = scale_offset(s, g, b, gamma, beta);
        let at = b * g.sample();
        parallel::for_rows(out, g.channels, |row_at, part| {
            apply(&x[at + row_at..at + row_at + part.len()], part, &scale, &offset, silu);
        });
    });
    // SAFETY: the samples are all of it, each made of whole rows, and every row was written.
    unsafe { out.set_len(x.len()) };
    out
}

#[inline(always)]
fn apply_within_body<const FMA: bool>(x: &mut [f32], scale: &[f32], offset: &[f32], silu: bool) {
    let c = scale.len();
    in_spans!(c, apply_span(x.chunks_exact_mut(c), scale, offset, silu));
}

dispatch! {
    fn apply_within(x: &mut [f32], scale: &[f32], offset: &[f32], silu: bool) = apply_within_body
}

/// [`group_norm`] in the place of `x`.
pub(crate) fn group_norm_within(x: &mut [f32], s: &Statistics, g: Geometry, gamma: &[f32], beta: &[f32], silu: bool) {
    let samples = x.par_chunks_mut(g.sample()).enumerate();
    samples.for_each(|(b, x)| {
        let (scale, offset) = scale_offset(s, g, b, gamma, beta);
        parallel::for_rows(x, g.channels, |_, part| {
            let (fold, whole) = folding(part.len(), g.channels);
            if fold > 1 {
                apply_within(&mut part[..whole], &scale.repeat(fold), &offset.repeat(fold), silu);
            }
            apply_within(&mut part[whole..], &scale, &offset, silu);
        });
    });
}

/// [`group_norm`] of rows of one sample, which lie in several pieces.
pub(crate) fn group_norm_of_pieces(
    pieces: &[&[f32]],
    s: &Statistics,
    g: Geometry,
    gamma: &[f32],
    beta: &[f32],
    silu: bool,
) -> Vec<f32> {
    let (scale, offset) = scale_offset(s, g, 0, gamma, beta);
    let len = pieces.iter().map(|piece| piece.len()).sum();
    let mut out = room(len);
    let mut free = &mut out.spare_capacity_mut()[..len];
    for piece in pieces {
        let (part, rest) = free.split_at_mut(piece.len());
        parallel::for_rows(part, g.channels, |at, part| {
            apply(&piece[at..at + part.len()], part, &scale, &offset, silu);
        });
        free = rest;
    }
    // SAFETY: the pieces are all of it, each made of whole rows, and every row was written.
    unsafe { out.set_len(len) };
    out
}

#[inline(always)]
fn backward_sums_span<const FMA: bool, const N: usize>(
    x: &[f32],
    dz: &mut [f32],
    [scale, offset, mean]: [&[f32]; 3],
    silu: bool,
    sums: &mut [f64],
    first: usize,
    count: usize,
) -> usize {
    let channels = scale.len();
    let [scale, offset, mean] = [scale, offset, mean].map(|values| span::<N>(values, first, count));
    let (mut s1, mut s2) = ([0.0f32; N], [0.0f32; N]);
    for (x, dz) in x.chunks_exact(channels).zip(dz.chunks_exact_mut(channels)) {
        let x = span::<N>(x, first, count);
        let mut d = span::<N>(dz, first, count);
        if silu {
            for (((d, &x), &a), &b) in d[..count].iter_mut().zip(&x).zip(&scale).zip(&offset) {
                *d *= silu_derivative::<FMA>(mul_add::<FMA>(x, a, b));
            }
            dz[first..first + count].copy_from_slice(&d[..count]);
        }
        for ((((s1, s2), &d), &x), &mean) in s1.iter_mut().zip(&mut s2).zip(&d[..count]).zip(&x).zip(&mean) {
            *s1 += d;
            *s2 = mul_add::<FMA>(d, x - mean, *s2);
        }
    }
    let (sums_dz, sums_dz_x) = sums.split_at_mut(channels);
    for (total, &s) in sums_dz[first..first + count].iter_mut().zip(&s1) {
        *total += f64::from(s);
    }
    for (total, &s) in sums_dz_x[first..first + count].iter_mut().zip(&s2) {
        *total += f64::from(s);
    }
    count
}

/// Turns `dz` (the gradient of the output) into the gradient before SiLU, and adds to
/// `sums` (per channel) `Σ dz` and `Σ dz · (x - mean)`.
#[inline(always)]
fn backward_sums_body<const FMA: bool>(
    x: &[f32],
    dz: &mut [f32],
    scale: &[f32],
    offset: &[f32],
    mean: &[f32],
    silu: bool,
    sums: &mut [f64],
) {
    let block = BLOCK * scale.len();
    for (x, dz) in x.chunks(block).zip(dz.chunks_mut(block)) {
        in_spans!(
            scale.len(),
            backward_sums_span(x, dz, [scale, offset, mean], silu, sums)
        );
    }
}

dispatch! {
    fn wide_backward_sums(
        x: &[f32], dz: &mut [f32], scale: &[f32], offset: &[f32], mean: &[f32], silu: bool, sums: &mut [f64],
    ) = backward_sums_body
}

fn backward_sums(x: &[f32], dz: &mut [f32], scale: &[f32], offset: &[f32], mean: &[f32], silu: bool, sums: &mut [f64]) {
    let channels = scale.len();
    let (fold, whole) = folding(x.len(), channels);
    if fold > 1 {
        let mut wide = vec![0.0; 2 * fold * channels];
        let [wide_scale, wide_offset, wide_mean] = [scale, offset, mean].map(|v| v.repeat(fold));
        let (x, dz) = (&x[..whole], &mut dz[..whole]);
        wide_backward_sums(x, dz, &wide_scale, &wide_offset, &wide_mean, silu, &mut wide);
        let (dz_sums, dz_x_sums) = wide.split_at(fold * channels);
        add_folded(&mut sums[..channels], dz_sums);
        add_folded(&mut sums[channels..], dz_x_sums);
    }
    wide_backward_sums(&x[whole..], &mut dz[whole..], scale, offset, mean, silu, sums);
}

/// `dx = dz · a + x · b + c`, per channel, in place of `dz`.
#[inline(always)]
fn backward_apply_body<const FMA: bool>(x: &[f32], dz: &mut [f32], a: &[f32], b: &[f32], c: &[f32]) {
    let channels = a.len();
    for (x, dz) in x.chunks_exact(channels).zip(dz.chunks_exact_mut(channels)) {
        for ((((dz, &x), &a), &b), &c) in dz.iter_mut().zip(x).zip(a).zip(b).zip(c) {
            *dz = mul_add::<FMA>(*dz, a, mul_add::<FMA>(x, b, c));
        }
    }
}

dispatch! {
    fn wide_backward_apply(x: &[f32], dz: &mut [f32], a: &[f32], b: &[f32], c: &[f32]) = backward_apply_body
}

fn backward_apply(x: &[f32], dz: &mut [f32], a: &[f32], b: &[f32], c: &[f32]) {
    let (fold, whole) = folding(x.len(), a.len());
    if fold > 1 {
        let [a, b, c] = [a, b, c].map(|v| v.repeat(fold));
        wide_backward_apply(&x[..whole], &mut dz[..whole], &a, &b, &c);
    }
    wide_backward_apply(&x[whole..], &mut dz[whole..], a, b, c);
}

/// Gradients of GroupNorm.
pub(crate) struct NormGradients {
    pub dx: Option<Vec<f32>>,
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
}

/// With `xhat = (x - mean) · rstd` and `dz` the gradient before SiLU:
/// `dgamma = Σ dz·xhat`, `dbeta = Σ dz`,
/// `dx = rstd · (gamma·dz - mean(gamma·dz) - xhat · mean(gamma·dz·xhat))`, means over the group. `dz` comes as the gradient of the
/// output.
pub(crate) fn group_norm_backward(
    x: &[f32],
    mut dz: Vec<f32>,
    s: &Statistics,
    g: Geometry,
    gamma: &[f32],
    beta: &[f32],
    silu: bool,
    needs_x: bool,
) -> NormGradients {
    let c = g.channels;
    let by_sample: Vec<Vec<f64>> = dz
        .par_chunks_mut(g.sample())
        .enumerate()
        .map(|(b, dz)| {
            let x = &x[b * g.sample()..(b + 1) * g.sample()];
            let (scale, offset) = scale_offset(s, g, b, gamma, beta);
            let mean: Vec<f32> = (0..c)
                .map(|i| s.mean[b * g.groups + i / g.per_group()] as f32)
                .collect();
            let sums = sample_sums(x, dz, &scale, &offset, &mean, silu);
            if needs_x {
                let (slope, intercept) = input_coefficients(&sums, s, g, b, gamma);
                parallel::for_rows(dz, c, |row_at, part| {
                    backward_apply(&x[row_at..row_at + part.len()], part, &scale, &slope, &intercept);
                });
            }
            sums
        })
        .collect();
    let mut d_gamma = vec![0.0f64; c];
    let mut d_beta = vec![0.0f64; c];
    for (b, sums) in by_sample.iter().enumerate() {
        for i in 0..c {
            d_beta[i] += sums[i];
            d_gamma[i] += sums[c + i] * s.rstd[b * g.groups + i / g.per_group()];
        }
    }
    let narrow = |v: Vec<f64>| v.into_iter().map(|v| v as f32).collect();
    NormGradients {
        dx: needs_x.then_some(dz),
        gamma: narrow(d_gamma),
        beta: narrow(d_beta),
    }
}

/// [`backward_sums`] over one sample, in parallel; the parts are added in order.
fn sample_sums(x: &[f32], dz: &mut [f32], scale: &[f32], offset: &[f32], mean: &[f32], silu: bool) -> Vec<f64> {
    let c = scale.len();
    let size = parallel::rows_per_task(c) * c;
    let part = |(x, dz): (&[f32], &mut [f32])| {
        let mut sums = vec![0.0f64; 2 * c];
        backward_sums(x, dz, scale, offset, mean, silu, &mut sums);
        sums
    };
    let parts: Vec<Vec<f64>> = if x.len() <= 4 * size {
        x.chunks(size).zip(dz.chunks_mut(size)).map(part).collect()
    } else {
        x.par_chunks(size).zip(dz.par_chunks_mut(size)).map(part).collect()
    };
    add_parts(&parts)
}

/// `dx = dz · scale + x · slope + intercept` for sample `b`: the last two, per channel.
fn input_coefficients(sums: &[f64], s: &Statistics, g: Geometry, b: usize, gamma: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let c = g.channels;
    let per_group: Vec<(f32, f32)> = (0..g.groups)
        .map(|group| {
            let channels = group * g.per_group()..(group + 1) * g.per_group();
            let (mean, rstd) = (s.mean[b * g.groups + group], s.rstd[b * g.groups + group]);
            let weighted = |from: usize| {
                channels
                    .clone()
                    .map(|i| f64::from(gamma[i]) * sums[from + i])
                    .sum::<f64>()
            };
            let mean_dz = weighted(0) / g.count();
            let mean_dz_xhat = weighted(c) * rstd / g.count();
            let slope = -rstd * rstd * mean_dz_xhat;
            (slope as f32, (-rstd * mean_dz - slope * mean) as f32)
        })
        .collect();
    (0..c).map(|i| per_group[i / g.per_group()]).unzip()
}

const LANES: usize = 16;

/// Sum of `f(x[i], y[i])` in lanes.
#[inline(always)]
fn lane_sum(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (x_rest, y_rest) = (xs.remainder(), ys.remainder());
    for (x, y) in xs.zip(ys) {
        for i in 0..LANES {
            lanes[i] += f(x[i], y[i]);
        }
    }
    for ((lane, &x), &y) in lanes.iter_mut().zip(x_rest).zip(y_rest) {
        *lane += f(x, y);
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

/// Mean and reciprocal standard deviation of one row.
#[inline(always)]
fn row_statistics(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    // The first value as the shift keeps the digits of rows far from zero.
    let shift = x[0];
    let mean = shift + lane_sum(x, x, |v, _| v - shift) / n;
    let variance = lane_sum(x, x, |v, _| (v - mean) * (v - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

#[inline(always)]
fn layer_norm_body<const FMA: bool>(x: &[f32], out: &mut [f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let channels = gamma.len();
    for (x, out) in x.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
        let (mean, rstd) = row_statistics(x, eps);
        for (((o, &x), &gamma), &beta) in out.iter_mut().zip(x).zip(gamma).zip(beta) {
            *o = mul_add::<FMA>((x - mean) * rstd, gamma, beta);
        }
    }
}

dispatch! {
    fn layer_norm_rows(x: &[f32], out: &mut [f32], gamma: &[f32], beta: &[f32], eps: f32) = layer_norm_body
}

/// LayerNorm of rows of `gamma.len()` values.
pub(crate) fn layer_norm(x: &[f32], gamma: &[f32], beta: &[f32], eps: f32) -> Vec<f32> {
    parallel::written_rows(x.len(), gamma.len(), |at, part| {
        layer_norm_rows(&x[at..at + part.len()], part, gamma, beta, eps);
    })
}

/// Adds `Σ grad·xhat` and `Σ grad` to `sums` and turns `dx` (the output's gradient) into the input's.
#[inline(always)]
fn layer_norm_backward_body<const FMA: bool>(x: &[f32], dx: &mut [f32], gamma: &[f32], eps: f32, sums: &mut [f32]) {
    let channels = gamma.len();
    let mut xhat = vec![0.0f32; channels];
    let (d_gamma, d_beta) = sums.split_at_mut(channels);
    for (x, dx) in x.chunks_exact(channels).zip(dx.chunks_exact_mut(channels)) {
        let (mean, rstd) = row_statistics(x, eps);
        for (h, &x) in xhat.iter_mut().zip(x) {
            *h = (x - mean) * rstd;
        }
        for (((dg, db), &h), &grad) in d_gamma.iter_mut().zip(d_beta.iter_mut()).zip(&xhat).zip(dx.iter()) {
            *dg = mul_add::<FMA>(grad, h, *dg);
            *db += grad;
        }
        for (dx, &gamma) in dx.iter_mut().zip(gamma) {
            *dx *= gamma;
        }
        let n = channels as f32;
        let mean_d = lane_sum(dx, &xhat, |d, _| d) / n;
        let mean_dh = lane_sum(dx, &xhat, |d, h| d * h) / n;
        for (dx, &h) in dx.iter_mut().zip(&xhat) {
            *dx = rstd * (*dx - mean_d - h * mean_dh);
        }
    }
}

dispatch! {
    fn layer_norm_backward_rows(x: &[f32], dx: &mut [f32], gamma: &[f32], eps: f32, sums: &mut [f32])
        = layer_norm_backward_body
}

/// Gradients of LayerNorm, `dx` being that of the output; the statistics are computed again, which is cheaper than keeping them.
pub(crate) fn layer_norm_backward(x: &[f32], mut dx: Vec<f32>, gamma: &[f32], eps: f32) -> NormGradients {
    let channels = gamma.len();
    let size = parallel::rows_per_task(channels) * channels;
    let part = |(x, dx): (&[f32], &mut [f32])| {
        let mut sums = vec![0.0f32; 2 * channels];
        layer_norm_backward_rows(x, dx, gamma, eps, &mut sums);
        sums.into_iter().map(f64::from).collect()
    };
    let parts: Vec<Vec<f64>> = if x.len() <= 4 * size {
        x.chunks(size).zip(dx.chunks_mut(size)).map(part).collect()
    } else {
        x.par_chunks(size).zip(dx.par_chunks_mut(size)).map(part).collect()
    };
    let sums: Vec<f32> = add_parts(&parts).into_iter().map(|v| v as f32).collect();
    NormGradients {
        dx: Some(dx),
        gamma: sums[..channels].to_vec(),
        beta: sums[channels..].to_vec(),
    }
}
