//! How the judge learns: AdamW on softmax losses, a cosine of learning rates, dropout; the same to the bit from the same renders.

use super::exam::{Asked, Ceiling, Score, questions};
use super::head::{CELLS, Head, Layout, WIDTH};
use super::labels::{Answers, Labels, NOTHING, SIDES};
use super::readers::{COLOURS_OF, GEOMETRY, Readers, counted};
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
/// Of the small networks that read what the head sees.
const READERS_EPOCHS: usize = 40;
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
        let readers = Readers::new(&mut source)?;
        let mut judge = Self {
            answers: lessons.answers.clone(),
            layout,
            head,
            readers,
            params: source.into_params(),
            ceilings: Vec::new(),
        };
        judge.learn_answers(&lessons.learnt, on_progress);
        judge.learn_to_read(&lessons.learnt);
        let (ceilings, wrong) = judge.examine(&lessons.held_out);
        judge.ceilings = ceilings;
        Ok((judge, wrong))
    }

    fn learn_answers(&self, examples: &[Example], on_progress: OnProgress) {
        let steps = EPOCHS * examples.len().div_ceil(BATCH);
        self.fit(&[], EPOCHS, examples.len(), |batch, done| {
            on_progress(done, steps);
            let chosen: Vec<&Example> = batch.iter().map(|i| &examples[*i]).collect();
            let maps: Vec<&Maps> = chosen.iter().map(|e| &e.maps).collect();
            let labels: Vec<&Labels> = chosen.iter().map(|e| &e.labels).collect();
            let cells = lessons_of(&labels, done as u32);
            let of_whole = self.head.whole(&maps, Some(&dropout(chosen.len(), done as u32)));
            let places = cells.iter().map(|lesson| (maps[lesson.picture], lesson.cell));
            let (_, of_cells) = self.head.cells(places);
            add(
                &with_gradient(&of_whole, &whole_gradient(&self.layout, of_whole.data(), &labels)),
                &with_gradient(
                    &of_cells,
                    &cells_gradient(&self.layout, of_cells.data(), &labels, &cells),
                ),
            )
        });
    }

    /// Once the head has learnt: what is read off what it sees.
    fn learn_to_read(&self, examples: &[Example]) {
        let (mut sides, mut colours, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for example in examples {
            let labels = &example.labels;
            if labels.side.is_none() && labels.count.is_none() && labels.things.iter().all(|t| t.colour.is_none()) {
                continue;
            }
            let seen = self.see(&example.maps);
            sides.extend(self.sides_of(&seen, labels));
            colours.extend(self.colours_of(&seen, labels));
            if let Some(count) = labels.count {
                counts.extend([false, true].map(|mirror| (counted(&seen.things(), &seen.tokens, mirror), count)));
            }
        }
        self.learn_sides(&sides);
        self.learn_colours(&colours);
        self.learn_counts(&counts);
    }

    pub(super) fn learn_sides(&self, lessons: &[(Vec<f32>, usize)]) {
        let shape = [GEOMETRY];
        self.learn_to_tell(&Readers::OF_SIDES, lessons, &shape, |x| self.readers.sides(x));
    }

    pub(super) fn learn_colours(&self, lessons: &[(Vec<f32>, usize)]) {
        let shape = [COLOURS_OF];
        self.learn_to_tell(&Readers::OF_COLOURS, lessons, &shape, |x| self.readers.colours(x));
    }

    pub(super) fn learn_counts(&self, lessons: &[(Vec<f32>, usize)]) {
        let shape = [CELLS, 1 + WIDTH];
        self.learn_to_tell(&Readers::OF_COUNTS, lessons, &shape, |x| self.readers.counts(x));
    }

    /// Teaches the readers called so. A lesson is what they read, of `shape`, and the right answer; rare answers weigh more.
    fn learn_to_tell(
        &self,
        called: &[&str],
        lessons: &[(Vec<f32>, usize)],
        shape: &[usize],
        read: impl Fn(&Tensor) -> Tensor,
    ) {
        let answers = lessons.iter().map(|(_, answer)| answer + 1).max().unwrap_or(0);
        let mut weights = vec![0.0f32; answers];
        for (_, answer) in lessons {
            weights[*answer] += answers as f32 / lessons.len() as f32;
        }
        for weight in &mut weights {
            *weight = weight.max(1e-3).powf(-0.5);
        }
        self.fit(called, READERS_EPOCHS, lessons.len(), |batch, _| {
            let values: Vec<f32> = batch.iter().flat_map(|i| lessons[*i].0.iter().copied()).collect();
            let shape: Vec<usize> = std::iter::once(batch.len()).chain(shape.iter().copied()).collect();
            let scores = read(&Tensor::from_vec(values, &shape));
            let width = scores.dim(1);
            let mut gradient = vec![0.0f32; scores.numel()];
            let rows = scores.data().chunks_exact(width).zip(gradient.chunks_exact_mut(width));
            for ((row, gradient), i) in rows.zip(batch) {
                let answer = lessons[*i].1;
                pull(row, gradient, &[(answer, 1.0)], weights[answer] / batch.len() as f32);
            }
            with_gradient(&scores, &gradient)
        });
    }

    /// Some epochs over `len` lessons, of the parameters called so, or of all but the readers'. `loss` of a batch's lessons and the
    /// step's number.
    fn fit(&self, called: &[&str], epochs: usize, len: usize, mut loss: impl FnMut(&[usize], usize) -> Tensor) {
        let readers = [Readers::OF_SIDES, Readers::OF_COLOURS, Readers::OF_COUNTS].concat();
        let starts = |name: &str, list: &[&str]| list.iter().any(|start| name.starts_with(start));
        let learns = |name: &str| {
            if called.is_empty() {
                !starts(name, &readers)
            } else {
                starts(name, called)
            }
        };
        let params: Vec<(String, Param)> = self.params.iter().filter(|(name, _)| learns(name)).cloned().collect();
        let mut optimizer = Optimizer::new(&params, LEARNING_RATE);
        let steps = epochs * len.div_ceil(BATCH);
        let mut done = 0;
        for epoch in 0..epochs {
            for batch in shuffled(len, epoch as u32).chunks(BATCH) {
                optimizer.step(&loss(batch, done).backward(), done as f32 / steps as f32);
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

    /// What the colours of these things are read off, and which they are.
    pub(super) fn colours_of(&self, seen: &Seen, labels: &Labels) -> Vec<(Vec<f32>, usize)> {
        let known = labels
            .things
            .iter()
            .filter_map(|thing| Some((thing.noun?, thing.colour?)));
        known
            .map(|(noun, colour)| (seen.colours_of(&self.answers.kinds[noun]), colour))
            .collect()
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
