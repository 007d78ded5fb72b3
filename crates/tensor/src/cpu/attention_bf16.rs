//! Attention whose products multiply bf16, with sums and softmax in f32. Forward only: nothing is trained in it.
//!
//! As in `attention.rs`, one block of scores exists at a time, but here it is transposed, `[keys][queries]`: the columns
//! of a register block are then queries, whose softmax runs in vector lanes, and the weights of two neighbouring keys
//! lie where the second product wants them as a pair. So keys and values are packed once, and scores never.

use crate::Tensor;
use crate::cpu::attention::Shape;
use crate::cpu::bf16::{interleave_pairs, pair_depths, rounded};
use crate::cpu::kernel::{Kernel, kernel};
use crate::cpu::math::{dispatch, exp, mul_add};
use crate::cpu::pack::{Aligned, interleave};
use rayon::prelude::*;

/// Queries of a task: whole panels of every kernel.
const QUERY_BLOCK: usize = 128;
/// Keys of a block: whole register rows of every kernel, and pairs. Scores and weights of one panel stay in L1.
const KEY_BLOCK: usize = 192;

/// `softmax(q kᵀ / sqrt(D)) v` with q, k, v and the softmax's weights rounded to bf16.
pub(crate) fn forward(s: &Shape, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let kernel = kernel();
    let heads: Vec<Head> = (0..s.batch * s.heads)
        .into_par_iter()
        .map(|bh| Head::pack(s, kernel, k, v, bh / s.heads, bh % s.heads))
        .collect();
    let blocks = s.queries.div_ceil(QUERY_BLOCK);
    let results: Vec<Vec<f32>> = (0..heads.len() * blocks)
        .into_par_iter()
        .map_init(
            || Workspace::new(s, kernel),
            |work, task| {
                let (bh, first) = (task / blocks, task % blocks * QUERY_BLOCK);
                forward_block(s, kernel, &heads[bh], q, bh, first, work)
            },
        )
        .collect();
    let mut out = vec![0.0; q.numel()];
    let parts = out.par_chunks_mut((s.queries * s.width()).max(1)).enumerate();
    parts.for_each(|(b, sample)| {
        let parts = sample.par_chunks_mut(QUERY_BLOCK * s.width()).enumerate();
        parts.for_each(|(block, part)| {
            for h in 0..s.heads {
                let values = results[(b * s.heads + h) * blocks + block].chunks_exact(s.dim);
                for (row, values) in part.chunks_exact_mut(s.width()).zip(values) {
                    row[h * s.dim..(h + 1) * s.dim].copy_from_slice(values);
                }
            }
        });
    });
    Tensor::from_vec(out, q.shape())
}

/// One head's keys and values as left matrices of pairs.
struct Head {
    /// `[keys / mr][D / 2][mr]`.
    keys: Vec<u32>,
    /// For each block of keys `[D / mr][keys of the block / 2][mr]`.
    values: Vec<u32>,
}

impl Head {
    fn pack(s: &Shape, kernel: &Kernel, k: &Tensor, v: &Tensor, b: usize, h: usize) -> Self {
        let (mr, half) = (kernel.mr, s.dim.div_ceil(2));
        let mut keys = vec![0; s.keys.div_ceil(mr) * mr * half];
        let mut space = Vec::new();
        for (tile, out) in keys.chunks_exact_mut(mr * half).enumerate() {
            let rows = tile * mr..s.keys.min((tile + 1) * mr);
            let strips: Vec<&[f32]> = rows.map(|key| s.row(k.data(), s.keys, b, h, key)).collect();
            interleave_pairs(&strips, mr, out, &mut space);
        }
        let mut values = Vec::with_capacity(s.dim.div_ceil(mr) * mr * s.keys.div_ceil(2));
        let mut panel = Vec::new();
        for first in (0..s.keys).step_by(KEY_BLOCK) {
            let len = KEY_BLOCK.min(s.keys - first);
            for d in (0..s.dim).step_by(mr) {
                let dims = d..s.dim.min(d + mr);
                panel.clear();
                for key in first..first + len {
                    panel.extend_from_slice(&s.row(v.data(), s.keys, b, h, key)[dims.clone()]);
                    panel.resize(panel.len() + mr - dims.len(), 0.0);
                }
                let at = values.len();
                values.resize(at + len.div_ceil(2) * mr, 0);
                pair_depths(&panel, mr, &mut values[at..]);
            }
        }
        Self { keys, values }
    }
}

/// What a thread needs for its block of queries: panels of `nr` of them.
struct Workspace {
    /// `[D / 2][nr]` pairs of each panel.
    queries: Aligned<u32>,
    /// `[keys of a block][nr]` of one panel, and as softmax weights in pairs `[keys / 2][nr]`.
    scores: Aligned<f32>,
    weights: Aligned<u32>,
    /// `[D][nr]`, D rounded up to register rows: one block's product, and the sum of each panel.
    product: Aligned<f32>,
    sums: Aligned<f32>,
    /// One panel of the output, `[nr][D]`.
    transposed: Vec<f32>,
    space: Vec<f32>,
    softmax: Vec<Running>,
}

/// The softmax of a panel's queries so far: the largest score, the sum of the weights, what the last block scaled the
/// earlier ones by.
#[derive(Clone)]
struct Running {
    top: [f32; MAX_NR],
    total: [f32; MAX_NR],
    correction: [f32; MAX_NR],
}

const MAX_NR: usize = 32;

impl Workspace {
    fn new(s: &Shape, kernel: &Kernel) -> Self {
        let (nr, half, dims) = (kernel.nr, s.dim.div_ceil(2), s.dim.next_multiple_of(kernel.mr));
        Self {
            queries: Aligned::pairs(QUERY_BLOCK * half),
            scores: Aligned::zeros(KEY_BLOCK * nr),
            weights: Aligned::pairs(KEY_BLOCK / 2 * nr),
            product: Aligned::zeros(dims * nr),
            sums: Aligned::zeros(QUERY_BLOCK * dims),
            transposed: vec![0.0; s.dim * nr],
            space: Vec::new(),
            softmax: Vec::new(),
        }
    }
}

/// `[queries of the block][D]` of one head.
fn forward_block(
    s: &Shape,
    kernel: &Kernel,
    head: &Head,
    q: &Tensor,
    bh: usize,
    first: usize,
    work: &mut Workspace,
) -> Vec<f32> {
    let (mr, nr, half) = (kernel.mr, kernel.nr, s.dim.div_ceil(2));
    let dims = s.dim.next_multiple_of(mr);
    let rows = QUERY_BLOCK.min(s.queries - first);
    let panels = rows.div_ceil(nr);
    pack_queries(s, nr, q, bh, first..first + rows, work);
    work.sums.fill(0.0);
    work.softmax.clear();
    work.softmax.resize(
        panels,
        Running {
            top: [f32::NEG_INFINITY; MAX_NR],
            total: [0.0; MAX_NR],
            correction: [0.0; MAX_NR],
        },
    );
    for key0 in (0..s.visible(first + rows - 1, 0, s.keys)).step_by(KEY_BLOCK) {
        let block = KEY_BLOCK.min(s.keys - key0);
        let values = &head.values[key0 / 2 * dims..];
        for (panel, softmax) in work.softmax.iter_mut().enumerate() {
            // The panel's last query sees as many of the block's keys as any.
            let len = s.visible(first + (panel + 1) * nr - 1, key0, block);
            if len == 0 {
                continue;
            }
            let queries = &work.queries[panel * half * nr..][..half * nr];
            for (tile, scores) in work.scores.chunks_exact_mut(mr * nr).take(len.div_ceil(mr)).enumerate() {
                let keys = &head.keys[(key0 + tile * mr) * half..];
                kernel.multiply_pairs(half, keys, queries, scores);
            }
            let scores = &mut work.scores[..len * nr];
            if s.causal {
                for (key, row) in scores.chunks_exact_mut(nr).enumerate() {
                    let unseen = (0..nr).take_while(|i| s.visible(first + panel * nr + i, key0, block) <= key);
                    row[..unseen.count()].fill(f32::NEG_INFINITY);
                }
            }
            softmax_block(scores, nr, s.scale(), softmax, &mut work.weights);
            for (tile, product) in work.product.chunks_exact_mut(mr * nr).enumerate() {
                let values = &values[tile * mr * block.div_ceil(2)..];
                kernel.multiply_pairs(len.div_ceil(2), values, &work.weights, product);
            }
            let sums = &mut work.sums[panel * dims * nr..][..dims * nr];
            accumulate(sums, &work.product, nr, &softmax.correction);
        }
    }
    finish(s, nr, rows, work)
}

fn pack_queries(s: &Shape, nr: usize, q: &Tensor, bh: usize, rows: std::ops::Range<usize>, work: &mut Workspace) {
    let (b, h) = (bh / s.heads, bh % s.heads);
    for (first, out) in rows
        .clone()
        .step_by(nr)
        .zip(work.queries.chunks_exact_mut(s.dim.div_ceil(2) * nr))
    {
        let rows = first..rows.end.min(first + nr);
        let strips: Vec<&[f32]> = rows.map(|row| s.row(q.data(), s.queries, b, h, row)).collect();
        interleave_pairs(&strips, nr, out, &mut work.space);
    }
}

/// Divides by the sums of the weights and turns the panels `[D][nr]` into rows `[D]`.
fn finish(s: &Shape, nr: usize, rows: usize, work: &mut Workspace) -> Vec<f32> {
    let dims = work.product.len() / nr;
    let mut out = Vec::with_capacity(rows * s.dim);
    for (panel, softmax) in work.softmax.iter().enumerate() {
        let sums = &mut work.sums[panel * dims * nr..][..s.dim * nr];
        for row in sums.chunks_exact_mut(nr) {
            for (x, total) in row.iter_mut().zip(&softmax.total) {
                *x /= total;
            }
        }
        let strips: Vec<&[f32]> = sums.chunks_exact(nr).collect();
        interleave(&strips, s.dim, &mut work.transposed);
        let take = nr.min(rows - panel * nr);
        out.extend_from_slice(&work.transposed[..take * s.dim]);
    }
    out
}

#[inline(always)]
fn softmax_body<const FMA: bool>(scores: &[f32], nr: usize, scale: f32, softmax: &mut Running, weights: &mut [u32]) {
    match nr {
        32 => softmax_columns::<FMA, 32>(scores, scale, softmax, weights),
        16 => softmax_columns::<FMA, 16>(scores, scale, softmax, weights),
        _ => softmax_columns::<FMA, 8>(scores, scale, softmax, weights),
    }
}

dispatch! {
    /// One block of scores `[keys][nr]` to weights `exp(scale (score - top))` in pairs of keys, with the running sums.
    fn softmax_block(scores: &[f32], nr: usize, scale: f32, softmax: &mut Running, weights: &mut [u32]) = softmax_body
}

#[inline(always)]
fn softmax_columns<const FMA: bool, const NR: usize>(
    scores: &[f32],
    scale: f32,
    softmax: &mut Running,
    weights: &mut [u32],
) {
    let (pairs, last) = scores.as_chunks::<NR>().0.as_chunks::<2>();
    let weights = weights.as_chunks_mut::<NR>().0;
    let mut tops = [[f32::NEG_INFINITY; NR]; 2];
    for rows in pairs {
        for (top, row) in tops.iter_mut().zip(rows) {
            raise(top, row);
        }
    }
    if let [row] = last {
        raise(&mut tops[0], row);
    }
    let mut shift = [0.0f32; NR];
    let mut total = [0.0f32; NR];
    for i in 0..NR {
        let before = softmax.top[i];
        let (a, b) = (tops[0][i], tops[1][i]);
        let block = if b > a { b } else { a };
        let top = if before > block { before } else { block };
        softmax.correction[i] = exp::<FMA>((before - top) * scale);
        softmax.top[i] = top;
        shift[i] = -top * scale;
        total[i] = softmax.total[i] * softmax.correction[i];
    }
    let mut odd_total = [0.0f32; NR];
    for ([even, odd], words) in pairs.iter().zip(&mut *weights) {
        for i in 0..NR {
            let low = weight::<FMA>(even[i], scale, shift[i], &mut total[i]);
            let high = weight::<FMA>(odd[i], scale, shift[i], &mut odd_total[i]);
            words[i] = low >> 16 | high;
        }
    }
    if let ([row], Some(words)) = (last, weights.get_mut(pairs.len())) {
        for i in 0..NR {
            words[i] = weight::<FMA>(row[i], scale, shift[i], &mut total[i]) >> 16;
        }
    }
    for i in 0..NR {
        softmax.total[i] = total[i] + odd_total[i];
    }
}

#[inline(always)]
fn raise<const NR: usize>(top: &mut [f32; NR], row: &[f32; NR]) {
    for (top, x) in top.iter_mut().zip(row) {
        *top = if *x > *top { *x } else { *top };
    }
}

/// `exp(scale · score + shift)` rounded to bf16, in the high half; `total` sums the rounded ones, so that the weights of
/// a query add up to one.
#[inline(always)]
fn weight<const FMA: bool>(score: f32, scale: f32, shift: f32, total: &mut f32) -> u32 {
    let word = rounded(exp::<FMA>(mul_add::<FMA>(score, scale, shift))) & 0xffff_0000;
    *total += f32::from_bits(word);
    word
}

#[inline(always)]
fn accumulate_body<const FMA: bool>(sums: &mut [f32], product: &[f32], nr: usize, correction: &[f32; MAX_NR]) {
    match nr {
        32 => accumulate_columns::<FMA, 32>(sums, product, correction),
        16 => accumulate_columns::<FMA, 16>(sums, product, correction),
        _ => accumulate_columns::<FMA, 8>(sums, product, correction),
    }
}

#[inline(always)]
fn accumulate_columns<const FMA: bool, const NR: usize>(sums: &mut [f32], product: &[f32], correction: &[f32; MAX_NR]) {
    let rows = sums.as_chunks_mut::<NR>().0.iter_mut();
    for (sum, product) in rows.zip(product.as_chunks::<NR>().0) {
        for i in 0..NR {
            sum[i] = mul_add::<FMA>(sum[i], correction[i], product[i]);
        }
    }
}

dispatch! {
    /// `sums = sums · correction + product`, each `[D][nr]`, column by column.
    fn accumulate(sums: &mut [f32], product: &[f32], nr: usize, correction: &[f32; MAX_NR]) = accumulate_body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Philox;

    /// Normal values that bf16 holds exactly.
    fn values(seed: u64, shape: &[usize]) -> Tensor {
        let noise = Philox {
            seed,
            image: 0,
            purpose: 0x7e57,
            step: 0,
        };
        let values = noise.normal(shape.iter().product());
        Tensor::from_vec(
            values
                .into_iter()
                .map(|x| f32::from_bits(rounded(x) & 0xffff_0000))
                .collect(),
            shape,
        )
    }

    /// The definition in f64, for one head of one sample and one query.
    fn plain(s: &Shape, q: &[f32], k: &Tensor, v: &Tensor, b: usize, h: usize, row: usize) -> Vec<f64> {
        let keys = 0..s.visible(row, 0, s.keys);
        let scores: Vec<f64> = keys
            .map(|key| {
                let k = s.row(k.data(), s.keys, b, h, key);
                let dot: f64 = q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                dot / (s.dim as f64).sqrt()
            })
            .collect();
        let top = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|x| (x - top).exp()).collect();
        let total: f64 = weights.iter().sum();
        let value = |key: usize, d: usize| f64::from(s.row(v.data(), s.keys, b, h, key)[d]);
        (0..s.dim)
            .map(|d| {
                weights
                    .iter()
                    .enumerate()
                    .map(|(key, w)| w / total * value(key, d))
                    .sum()
            })
            .collect()
    }

    /// Only the softmax's weights are rounded here, each by at most 2⁻⁹ of itself, and their sum alike: the result is off
    /// by at most 2⁻⁸ of the largest value.
    #[test]
    fn bf16_attention_is_its_definition_within_the_rounding_of_the_weights() {
        for (batch, queries, keys, heads, dim, causal) in [
            (1, 1, 1, 1, 1, false),
            (2, 5, 7, 3, 4, false),
            (1, 50, 50, 2, 8, true),
            (1, 97, 301, 1, 16, false),
            (2, 77, 77, 2, 5, true),
            (1, 260, 520, 1, 3, true),
            (1, 130, 77, 2, 64, false),
            (1, 129, 385, 1, 70, true),
            (2, 33, 192, 1, 12, false),
        ] {
            let (q, k, v) = (
                values(1, &[batch, queries, heads * dim]),
                values(2, &[batch, keys, heads * dim]),
                values(3, &[batch, keys, heads * dim]),
            );
            let s = Shape::new(q.shape(), k.shape(), v.shape(), heads, causal);
            let got = forward(&s, &q, &k, &v);
            assert_eq!(got.shape(), q.shape());
            let largest = f64::from(v.data().iter().fold(0.0f32, |m, x| m.max(x.abs())));
            for b in 0..batch {
                for (h, row) in (0..heads).flat_map(|h| (0..queries).map(move |row| (h, row))) {
                    let query = s.row(q.data(), queries, b, h, row);
                    let result = s.row(got.data(), queries, b, h, row);
                    for (d, want) in plain(&s, query, &k, &v, b, h, row).iter().enumerate() {
                        let off = (f64::from(result[d]) - want).abs();
                        assert!(
                            off <= largest / 256.0,
                            "{s:?}: sample {b}, head {h}, query {row}, {d}: {} against {want}",
                            result[d]
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn weights_add_up_to_one_also_when_scores_grow() {
        // The largest score comes last, so that every block corrects the ones before it; all values are the same.
        let ramp = |rows: usize, dim: usize, step: f32| {
            let values = (0..rows * dim).map(|i| f32::from_bits(rounded((i / dim) as f32 * step) & 0xffff_0000));
            Tensor::from_vec(values.collect(), &[1, rows, dim])
        };
        let (q, k) = (ramp(70, 8, 0.1), ramp(700, 8, 0.05));
        let v = Tensor::full(1.5, &[1, 700, 8]);
        let s = Shape::new(q.shape(), k.shape(), v.shape(), 1, false);
        let got = forward(&s, &q, &k, &v);
        assert!(got.data().iter().all(|x| (x - 1.5).abs() < 1e-5));
    }
}
