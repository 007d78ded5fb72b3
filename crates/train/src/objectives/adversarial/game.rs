//! The game of a student and a discriminator. In ADD and LADD that is heads on what a frozen network sees of the student's answers
//! and of real data.

use crate::draws::{chosen, noise, purpose, uniform};
use crate::error::Result;
use crate::networks::denoise;
use crate::noising::Noising;
use crate::objective::{Loss, Player, Turn};
use crate::objectives::discriminator::{mean, mean_hinge};
use crate::objectives::{Drawn, Trainee};
use crate::params::NamedParams;
use crate::trainer::LoopConfig;
use prima_tensor::{Tensor, add, affine, sub, weighted_mse};

const STUDENT: usize = 0;
pub(super) const DISCRIMINATOR: usize = 1;

/// Standard deviation of the noise under which a discriminator's answers should not change.
const NUDGE: f32 = 0.1;

/// Whose learning rate is `rate` times the student's: `heads`.
pub(super) fn players(student: &Trainee, heads: &NamedParams, rate: f32, training: &LoopConfig) -> Vec<Player> {
    vec![
        Player::main("student", student.unet_params.clone(), training),
        Player::beside("discriminator", heads.clone(), training, rate),
    ]
}

/// The student's, after so many of the discriminator's.
pub(super) fn turns(discriminator_updates: usize) -> Vec<Turn> {
    let mut turns = vec![Turn::of(DISCRIMINATOR); discriminator_updates];
    turns.push(Turn::of(STUDENT));
    turns
}

/// The timesteps that a student paints from, and how often each of them is trained, relative to the others.
pub(super) struct Ladder<'a> {
    pub(super) timesteps: &'a [usize],
    pub(super) shares: &'a [f32],
}

impl Ladder<'_> {
    /// The student's input of batch `number`, real latents noised to one of its timesteps, and its x0.
    pub(super) fn answered(
        &self,
        student: &Trainee,
        noising: &Noising,
        drawn: &Drawn,
        [seed, number]: [u64; 2],
    ) -> Result<(Tensor, Vec<usize>, Tensor)> {
        let rung = |u: &f32| self.timesteps[chosen(self.shares, *u)];
        let draws = uniform(seed, purpose::RUNG, number, drawn.real.dim(0));
        let timesteps: Vec<usize> = draws.iter().map(rung).collect();
        let noise = noise(seed, purpose::NOISE, number, drawn.real.shape());
        let x = noising.noised(&timesteps, &drawn.real, &noise);
        let output = denoise(student.unet(), &x, &timesteps, &drawn.cond)?;
        let x0 = noising.denoised(&timesteps, &x, &output);
        Ok((x, timesteps, x0))
    }
}

/// The student's loss: to look real, and, where that has a weight, its `distance` to what it is taught; the weights of both.
pub(super) fn fooling(
    logits: &Tensor,
    [adversarial, weight]: [f32; 2],
    distance: impl FnOnce() -> Result<Tensor>,
) -> Result<Loss> {
    let judged = mean(logits);
    let fooled = affine(&judged, -adversarial, 0.0);
    let mut metrics = vec![("judged", judged.item())];
    if weight == 0.0 {
        return Ok(Loss::new(fooled, metrics));
    }
    let distance = distance()?;
    metrics.push(("distance", distance.item()));
    Ok(Loss::new(add(&fooled, &affine(&distance, weight, 0.0)), metrics))
}

/// The heads' loss: the hinge, and R1 by finite differences of what they judge, so that the frozen network is not asked again.
/// `seen` are maps of real data and of answers.
pub(super) fn judging(
    logits: impl Fn(&[Tensor]) -> Tensor,
    seen: [&[Tensor]; 2],
    gradient_penalty: f32,
    [seed, number]: [u64; 2],
) -> Loss {
    let [real, fake] = seen.map(&logits);
    let mut total = add(&mean_hinge(&real, true), &mean_hinge(&fake, false));
    let mut metrics = vec![
        ("hinge", total.item()),
        ("apart", mean(&real).item() - mean(&fake).item()),
    ];
    if gradient_penalty > 0.0 {
        let nudged = |(i, map): (usize, &Tensor)| nudged(map, [seed + i as u64, number]);
        let nudged: Vec<Tensor> = seen[0].iter().enumerate().map(nudged).collect();
        let penalty = change(&logits(&nudged), &real);
        metrics.push(("penalty", penalty.item()));
        total = add(&total, &affine(&penalty, gradient_penalty, 0.0));
    }
    Loss::new(total, metrics)
}

/// What a discriminator judges, under that noise.
pub(super) fn nudged(x: &Tensor, [seed, number]: [u64; 2]) -> Tensor {
    let nudge = noise(seed, purpose::NUDGE, number, x.shape());
    add(x, &affine(&nudge, NUDGE, 0.0))
}

/// The mean squared change of answers under that noise, over its deviation.
pub(super) fn change(nudged: &Tensor, before: &Tensor) -> Tensor {
    let change = affine(&sub(nudged, before), 1.0 / NUDGE, 0.0);
    weighted_mse(&change, &Tensor::zeros(change.shape()), &vec![1.0; change.dim(0)])
}
