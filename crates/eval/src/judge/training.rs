//! How the judge learns: AdamW on softmax losses, a cosine of learning rates, dropout; the same to the bit from the same renders.

use super::exam::{Asked, Ceiling, Score, questions};
use super::head::{CELLS, GEOMETRY, Head, Layout};
use super::labels::{Answers, Labels, NOTHING, SIDES};
use super::relation::{geometry, mirrored};
use super::renders::{Example, HELD_OUT_SEED, LEARNT_SEED, examples};
use super::seen::softmax;
use super::{Judge, Seen};
use crate::features::Maps;
use crate::{Error, FeatureNet, OnProgress};
use prima_checkpoint::RandomInit;
use prima_data::world::World;
use prima_tensor::{AdamWStep, Gradients, Moments, Param, Philox, Tensor, adamw_update, add, weighted_mse};
use std::collections::BTreeMap;

const BATCH: usize = 32;
const EPOCHS: usize = 10;
/// Cells of each thing that a step learns from.
const DRAWN_CELLS: usize = 10;
const LEARNING_RATE: f32 = 1.2e-3;
const WARM_STEPS: f32 = 20.0;
const WEIGHT_DECAY: f32 = 0.04;
const DROPOUT: f32 = 0.3;
/// Of the pairs, whose places a small network of its own reads.
const PAIR_EPOCHS: usize = 40;
/// By [`SIDES`]: left and right change places in a mirror.
const MIRRORED: [usize; SIDES.len()] = [1, 0, 2, 3, 4];
/// By [`SIDES`]: how the second lies to the first.
const TURNED: [Option<usize>; SIDES.len()] = [Some(1), Some(0), Some(3), Some(2), None];
/// One render in so many is held out, beside those that are learnt from.
const HELD_OUT: usize = 5;
/// Where the parameters start.
const SEED: u64 = 17;

/// The renders that a judge learns from, and those that it is examined on.
pub struct Lessons {
    pub(super) answers: Answers,
    pub(super) learnt: Vec<Example>,
    pub(super) held_out: Vec<Example>,
}

impl Lessons {
    /// Renders `pictures` to learn from and a fifth as many to be examined on, and looks at each with the feature network.
    pub fn render(world: &World, net: &FeatureNet, pictures: usize, on_progress: OnProgress) -> Result<Self, Error> {
        let answers = Answers::of(world);
        let held_out = pictures / HELD_OUT;
        let all = pictures + held_out;
        let learnt = examples(world, &answers, net, LEARNT_SEED, 0..pictures, true, &mut |done, _| {
            on_progress(done, all);
        })?;
        let held_out = examples(
            world,
            &answers,
            net,
            HELD_OUT_SEED,
            0..held_out,
            false,
            &mut |done, _| {
                on_progress(pictures + done, all);
            },
        )?;
        Ok(Self {
            answers,
            learnt,
            held_out,
        })
    }
}

impl Judge {
    /// Trains a judge and examines it. Also given are the held-out renders' numbers and the questions that it got wrong.
    pub fn learn(lessons: &Lessons, on_progress: OnProgress) -> Result<(Self, Vec<(usize, Asked)>), Error> {
        let layout = Layout::of(&lessons.answers);
        let mut source = RandomInit::new(SEED);
        let head = Head::new(&mut source, &layout)?;
        let mut judge = Self {
            answers: lessons.answers.clone(),
            layout,
            head,
            params: source.into_params(),
            ceilings: Vec::new(),
        };
        judge.learn_answers(&lessons.learnt, on_progress);
        let pairs = lessons.learnt.iter().filter(|example| example.labels.side.is_some());
        let pairs: Vec<(Vec<f32>, usize)> = pairs
            .flat_map(|example| judge.sides_of(&judge.see(&example.maps), &example.labels))
            .collect();
        judge.learn_sides(&pairs);
        let (ceilings, wrong) = judge.examine(&lessons.held_out);
        judge.ceilings = ceilings;
        Ok((judge, wrong))
    }

    fn learn_answers(&self, examples: &[Example], on_progress: OnProgress) {
        let mut optimizer = Optimizer::new(&self.params, LEARNING_RATE);
        let steps = EPOCHS * examples.len().div_ceil(BATCH);
        let mut done = 0;
        for epoch in 0..EPOCHS {
            for batch in shuffled(examples.len(), epoch as u32).chunks(BATCH) {
                on_progress(done, steps);
                let chosen: Vec<&Example> = batch.iter().map(|i| &examples[*i]).collect();
                let maps: Vec<&Maps> = chosen.iter().map(|e| &e.maps).collect();
                let labels: Vec<&Labels> = chosen.iter().map(|e| &e.labels).collect();
                let cells = lessons_of(&labels, done as u32);
                let of_whole = self.head.whole(&maps, Some(&dropout(chosen.len(), done as u32)));
                let of_cells = self
                    .head
                    .cells(cells.iter().map(|lesson| (maps[lesson.picture], lesson.cell)));
                let loss = add(
                    &with_gradient(&of_whole, &whole_gradient(&self.layout, of_whole.data(), &labels)),
                    &with_gradient(
                        &of_cells,
                        &cells_gradient(&self.layout, of_cells.data(), &labels, &cells),
                    ),
                );
                optimizer.step(&loss.backward(), done as f32 / steps as f32);
                done += 1;
            }
        }
    }

    /// Once the things are known: how two of them lie to each other, from where they are seen.
    pub(super) fn learn_sides(&self, pairs: &[(Vec<f32>, usize)]) {
        if pairs.is_empty() {
            return;
        }
        let of_sides = |name: &str| name.starts_with("geometry") || name.starts_with("sides");
        let params: Vec<(String, Param)> = self.params.iter().filter(|(name, _)| of_sides(name)).cloned().collect();
        let mut optimizer = Optimizer::new(&params, LEARNING_RATE);
        let steps = PAIR_EPOCHS * pairs.len().div_ceil(BATCH);
        let mut done = 0;
        for epoch in 0..PAIR_EPOCHS {
            for batch in shuffled(pairs.len(), epoch as u32).chunks(BATCH) {
                let values: Vec<f32> = batch.iter().flat_map(|i| pairs[*i].0.iter().copied()).collect();
                let scores = self.head.sides(&Tensor::from_vec(values, &[batch.len(), GEOMETRY]));
                let mut gradient = vec![0.0f32; scores.numel()];
                let rows = scores
                    .data()
                    .chunks_exact(SIDES.len())
                    .zip(gradient.chunks_exact_mut(SIDES.len()));
                for ((row, gradient), i) in rows.zip(batch) {
                    pull(row, gradient, &[(pairs[*i].1, 1.0)], 1.0 / batch.len() as f32);
                }
                let loss = with_gradient(&scores, &gradient);
                optimizer.step(&loss.backward(), done as f32 / steps as f32);
                done += 1;
            }
        }
    }

    /// Where a pair's things are seen, and how they lie; the same in a mirror, and of the second to the first.
    pub(super) fn sides_of(&self, seen: &Seen, labels: &Labels) -> Vec<(Vec<f32>, usize)> {
        let [first, second] = labels.things.as_slice() else {
            return Vec::new();
        };
        let (Some(first), Some(second), Some(side)) = (first.noun, second.noun, labels.side) else {
            return Vec::new();
        };
        let maps = [seen.things(), self.evidence(seen, first), self.evidence(seen, second)];
        let mirror = maps.each_ref().map(|map| mirrored(map));
        let mut lessons = Vec::new();
        for ([things, a, b], side) in [(&maps, side), (&mirror, MIRRORED[side])] {
            lessons.extend(geometry(things, a, b).map(|values| (values, side)));
            if let Some(turned) = TURNED[side] {
                lessons.extend(geometry(things, b, a).map(|values| (values, turned)));
            }
        }
        lessons
    }

    /// The judge's scores on renders, question by question, and what it got wrong of which of them.
    fn examine(&self, examples: &[Example]) -> (Vec<Ceiling>, Vec<(usize, Asked)>) {
        let mut wrong = Vec::new();
        let mut scores: BTreeMap<&'static str, Score> = BTreeMap::new();
        let mut order = Vec::new();
        let mut count = |question: &'static str, rank: usize| {
            if !order.contains(&question) {
                order.push(question);
            }
            scores.entry(question).or_default().add(rank);
        };
        for (number, example) in examples.iter().enumerate() {
            let seen = self.see(&example.maps);
            for asked in questions(&example.labels) {
                let rank = self.rank(&seen, &asked);
                count(asked.question(), rank);
                if rank > 0 {
                    wrong.push((number, asked));
                }
            }
            if let [thing] = example.labels.things.as_slice()
                && thing.count == 1
            {
                let off = seen
                    .centre()
                    .map_or(1.0, |[x, y]| (x - thing.centre[0]).hypot(y - thing.centre[1]));
                count(CENTRE, usize::from(off > NEAR));
            }
        }
        let row = |question: &str| Ceiling {
            question: question.to_owned(),
            score: scores[question],
        };
        (order.into_iter().map(row).collect(), wrong)
    }
}

/// The question of where a single thing is, and how far off an answer may be, of the picture's width.
pub(crate) const CENTRE: &str = "centre";
const NEAR: f32 = 0.1;

struct Optimizer {
    params: Vec<Param>,
    moments: Vec<Moments>,
    learning_rate: f32,
    steps: i32,
}

impl Optimizer {
    fn new(params: &[(String, Param)], learning_rate: f32) -> Self {
        let params: Vec<Param> = params.iter().map(|(_, param)| param.clone()).collect();
        for param in &params {
            param.set_trainable(true);
        }
        Self {
            moments: params.iter().map(|p| Moments::zeros(&p.shape())).collect(),
            params,
            learning_rate,
            steps: 0,
        }
    }

    /// `progress`: share of the training that is done.
    fn step(&mut self, gradients: &Gradients, progress: f32) {
        self.steps += 1;
        let (beta1, beta2) = (0.9f32, 0.99f32);
        let warm = (self.steps as f32 / WARM_STEPS).min(1.0);
        let rate = self.learning_rate * warm * 0.5 * (1.0 + (std::f32::consts::PI * progress).cos());
        for (param, moments) in self.params.iter().zip(&mut self.moments) {
            let Some(gradient) = gradients.param(param) else {
                continue;
            };
            let decays = param.shape().len() > 1;
            let step = AdamWStep {
                beta1,
                beta2,
                epsilon: 1e-8,
                grad_scale: 1.0,
                step_size: rate / (1.0 - beta1.powi(self.steps)),
                inv_sqrt_correction2: 1.0 / (1.0 - beta2.powi(self.steps)).sqrt(),
                keep: if decays { 1.0 - rate * WEIGHT_DECAY } else { 1.0 },
            };
            adamw_update(param, gradient, moments, &step);
        }
    }
}

impl Drop for Optimizer {
    fn drop(&mut self) {
        for param in &self.params {
            param.set_trainable(false);
        }
    }
}

/// 0..`len` in an order of the epoch's own.
fn shuffled(len: usize, epoch: u32) -> Vec<usize> {
    let drawn = stream(1, epoch).uniform(len);
    let mut order: Vec<usize> = (0..len).collect();
    order.sort_by(|a, b| drawn[*a].total_cmp(&drawn[*b]));
    order
}

fn dropout(count: usize, step: u32) -> Tensor {
    let drawn = stream(2, step).uniform(count * Head::SUMMARY);
    let mask = drawn
        .into_iter()
        .map(|v| if v < DROPOUT { 0.0 } else { 1.0 / (1.0 - DROPOUT) });
    Tensor::from_vec(mask.collect(), &[count, Head::SUMMARY])
}

fn stream(purpose: u32, step: u32) -> Philox {
    Philox {
        seed: SEED,
        image: 0,
        purpose,
        step,
    }
}

/// A scalar whose gradient at `x` is `gradient`: half of the squared distance to where the gradient points.
fn with_gradient(x: &Tensor, gradient: &[f32]) -> Tensor {
    let scale = x.numel() as f32 / 2.0;
    let target = x.data().iter().zip(gradient).map(|(x, g)| x - g * scale).collect();
    let ones = vec![1.0; x.dim(0)];
    weighted_mse(x, &Tensor::from_vec(target, x.shape()), &ones)
}

/// Adds the gradient of `weight` times the cross-entropy of `scores` with `targets`, whose shares sum to one.
fn pull(scores: &[f32], gradient: &mut [f32], targets: &[(usize, f32)], weight: f32) {
    for (g, p) in gradient.iter_mut().zip(softmax(scores)) {
        *g += weight * p;
    }
    for (answer, share) in targets {
        gradient[*answer] -= weight * share;
    }
}

/// A cell to learn from.
struct CellLesson {
    picture: usize,
    cell: usize,
    weight: f32,
}

/// Some cells of each picture, drawn anew at each step: of each thing, and of where nothing is. Each thing weighs alike, however
/// many cells it fills, and all that shows nothing as half a thing.
fn lessons_of(labels: &[&Labels], step: u32) -> Vec<CellLesson> {
    let drawn = stream(3, step).uniform(labels.len() * CELLS);
    let mut lessons = Vec::new();
    for (picture, labels) in labels.iter().enumerate() {
        for shown in 0..=labels.things.len() as u8 {
            let mut cells: Vec<usize> = (0..CELLS).filter(|cell| labels.cells[*cell] == shown).collect();
            cells.sort_by(|a, b| drawn[picture * CELLS + a].total_cmp(&drawn[picture * CELLS + b]));
            cells.truncate(DRAWN_CELLS);
            let share = if shown == NOTHING { 0.5 } else { 1.0 };
            let weight = share / (cells.len().max(1) * labels.things.len().max(1)) as f32;
            lessons.extend(cells.into_iter().map(|cell| CellLesson { picture, cell, weight }));
        }
    }
    lessons
}

fn whole_gradient(layout: &Layout, scores: &[f32], labels: &[&Labels]) -> Vec<f32> {
    let mut gradient = vec![0.0f32; scores.len()];
    let rows = gradient
        .chunks_exact_mut(layout.whole())
        .zip(scores.chunks_exact(layout.whole()));
    for ((gradient, scores), picture) in rows.zip(labels) {
        of_picture(layout, scores, gradient, picture, 1.0 / labels.len() as f32);
    }
    gradient
}

fn of_picture(layout: &Layout, scores: &[f32], gradient: &mut [f32], labels: &Labels, share: f32) {
    let named: Vec<_> = labels.things.iter().filter(|thing| !thing.names.is_empty()).collect();
    if !named.is_empty() {
        let names = named.iter().flat_map(|thing| &thing.names);
        let targets: Vec<(usize, f32)> = names.map(|(noun, part)| (*noun, part / named.len() as f32)).collect();
        let range = layout.nouns.clone();
        pull(&scores[range.clone()], &mut gradient[range], &targets, share);
    }
    for (range, answer, weight) in [
        (&layout.places, labels.place, 0.6),
        (&layout.times, labels.time, 0.6),
        (&layout.weathers, labels.weather, 0.3),
        (&layout.styles, labels.style, 0.5),
        (&layout.counts, labels.count, 0.8),
    ] {
        if let Some(answer) = answer {
            let range = range.clone();
            pull(
                &scores[range.clone()],
                &mut gradient[range],
                &[(answer, 1.0)],
                weight * share,
            );
        }
    }
}

fn cells_gradient(layout: &Layout, scores: &[f32], labels: &[&Labels], lessons: &[CellLesson]) -> Vec<f32> {
    let mut gradient = vec![0.0f32; scores.len()];
    let pictures = labels.len() as f32;
    let rows = gradient
        .chunks_exact_mut(layout.cell())
        .zip(scores.chunks_exact(layout.cell()));
    for ((gradient, scores), lesson) in rows.zip(lessons) {
        let labels = labels[lesson.picture];
        let shown = usize::from(labels.cells[lesson.cell]);
        let weight = lesson.weight / pictures;
        let of_things = &mut gradient[layout.things.clone()];
        let targets = match labels.things.get(shown.wrapping_sub(1)) {
            None => vec![(usize::from(NOTHING), 1.0)],
            Some(thing) if thing.names.is_empty() => vec![(layout.things.len() - 1, 1.0)],
            Some(thing) => thing.names.iter().map(|(noun, part)| (noun + 1, *part)).collect(),
        };
        pull(&scores[layout.things.clone()], of_things, &targets, weight);
        if let Some(colour) = labels.things.get(shown.wrapping_sub(1)).and_then(|thing| thing.colour) {
            let range = layout.colours.clone();
            pull(
                &scores[range.clone()],
                &mut gradient[range],
                &[(colour, 1.0)],
                0.5 * weight,
            );
        }
    }
    gradient
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scalar_has_the_gradient_that_it_was_made_for() {
        let x = Tensor::from_vec(vec![3.0, -1.0, 0.5, 2.0], &[2, 2]).requires_grad();
        let gradients = with_gradient(&x, &[0.25, -0.5, 0.0, 1.0]).backward();
        let found = gradients.get(&x).unwrap().data().to_vec();
        assert_eq!(found, [0.25, -0.5, 0.0, 1.0]);
    }

    #[test]
    fn pulling_by_a_softmax_moves_towards_the_targets() {
        let mut gradient = vec![0.0; 3];
        pull(&[0.0, 0.0, 0.0], &mut gradient, &[(0, 0.5), (2, 0.5)], 1.0);
        assert!(gradient[0] < 0.0 && gradient[2] < 0.0 && gradient[1] > 0.0);
        assert!(gradient.iter().sum::<f32>().abs() < 1e-6);
    }
}
