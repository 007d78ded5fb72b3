//! Several players: a small GAN on a mixture of Gaussians, whose modes it has to find; what phases need; and that a run that
//! is killed, or that several processes share, ends with the same bits.

use super::common::{saved, saved_step};
use super::{Scratch, in_a_group_of_two};
use crate::draws::{noise, purpose, uniform};
use crate::error::Result;
use crate::objective::{Batch, Loss, Objective, Player, Turn};
use crate::params::NamedParams;
use crate::trainer::{AdamWConfig, Budget, LoopConfig, LrScheduler, RunOptions, run};
use prima_checkpoint::{Init, ParamSource, RandomInit};
use prima_picture::Picture;
use prima_tensor::{
    Activation, Param, Tensor, activation, add, affine, avg_pool_global, ema_update, linear, mean_absolute_error,
    no_grad, stack_batch, sub, weighted_mse,
};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const GENERATOR: usize = 0;
const DISCRIMINATOR: usize = 1;
const BATCH: usize = 64;
/// Of the mixture, of equal shares.
const MODES: [[f32; 2]; 4] = [[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]];
const DEVIATION: f32 = 0.1;

/// Three linear layers.
struct Mlp {
    layers: Vec<[Param; 2]>,
    params: NamedParams,
}

impl Mlp {
    fn new(name: &str, widths: [usize; 4], seed: u64) -> Self {
        let mut source = RandomInit::new(seed);
        let mut param = |key: String, shape: &[usize], fan_in| source.param(&key, shape, Init::FanIn(fan_in)).unwrap();
        let layers = (0..3).map(|i| {
            let (inputs, outputs) = (widths[i], widths[i + 1]);
            [
                param(format!("{name}.{i}.weight"), &[outputs, inputs], inputs),
                param(format!("{name}.{i}.bias"), &[outputs], inputs),
            ]
        });
        let layers = layers.collect();
        let params = source.into_params();
        Self { layers, params }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let last = self.layers.len() - 1;
        self.layers
            .iter()
            .enumerate()
            .fold(x.clone(), |x, (i, [weight, bias])| {
                let act = if i == last { Activation::None } else { Activation::Silu };
                linear(&x, weight, Some(bias), act, None)
            })
    }
}

/// Hinge losses, two turns of the discriminator for one of the generator, and R1 by finite differences.
pub(super) struct Gan {
    generator: Mlp,
    discriminator: Mlp,
    /// A running mean of the discriminator's answers to real samples, and when it began anew.
    answer: Param,
    phase: Param,
    /// From this step on the discriminator is another one.
    renewed_at: u64,
    /// In this step the run is asked to stop.
    pub(super) stops_after: Option<(u64, Arc<AtomicBool>)>,
}

impl Gan {
    pub(super) fn new(renewed_at: u64) -> Self {
        Self {
            generator: Mlp::new("generator", [4, 64, 64, 2], 1),
            discriminator: Mlp::new("discriminator", [2, 64, 64, 1], 2),
            answer: Param::new(Tensor::zeros(&[1])),
            phase: Param::new(Tensor::zeros(&[1])),
            renewed_at,
            stops_after: None,
        }
    }

    fn real(number: u64) -> Tensor {
        let which = uniform(3, purpose::ROW, number, BATCH);
        let centres = which.iter().flat_map(|u| MODES[(u * 4.0) as usize]).collect();
        let spread = affine(&noise(3, purpose::NOISE, number, &[BATCH, 2]), DEVIATION, 0.0);
        add(&Tensor::from_vec(centres, &[BATCH, 2]), &spread)
    }

    fn fake(&self, number: u64, count: usize) -> Tensor {
        self.generator.forward(&noise(3, purpose::LATENT, number, &[count, 4]))
    }

    fn discriminator_loss(&self, number: u64) -> Loss {
        let (real, fake) = (Self::real(number), no_grad(|| self.fake(number, BATCH)));
        let both = stack_batch(&[&real, &fake]);
        let answer = self.discriminator.forward(&both);
        // relu(1 - D) of the real ones, relu(1 + D) of the others; the mean of what is not negative.
        let signs: Vec<f32> = (0..2 * BATCH).map(|i| if i < BATCH { -1.0 } else { 1.0 }).collect();
        let signed = prima_tensor::mul(&answer, &Tensor::from_vec(signs, &[2 * BATCH, 1]));
        let hinge = activation(&affine(&signed, 1.0, 1.0), Activation::Relu);
        let hinge = mean_absolute_error(&hinge, &Tensor::zeros(hinge.shape()));
        let nudge = affine(&noise(4, purpose::NOISE, number, both.shape()), 0.05, 0.0);
        let change = sub(&self.discriminator.forward(&add(&both, &nudge)), &answer);
        let penalty = weighted_mse(&change, &Tensor::zeros(change.shape()), &vec![1.0; 2 * BATCH]);
        let mean = answer.data()[..BATCH].iter().sum::<f32>() / BATCH as f32;
        Loss {
            observed: vec![mean],
            ..Loss::new(
                add(&affine(&hinge, 2.0, 0.0), &affine(&penalty, 100.0, 0.0)),
                vec![("answer", mean)],
            )
        }
    }

    fn generator_loss(&self, number: u64) -> Loss {
        let answer = self.discriminator.forward(&self.fake(number, BATCH));
        let mean = avg_pool_global(&answer.reshape(&[1, BATCH, 1, 1])).reshape(&[1]);
        Loss::new(affine(&mean, -1.0, 0.0), Vec::new())
    }
}

fn adam() -> AdamWConfig {
    AdamWConfig {
        learning_rate: 2e-3,
        beta1: 0.0,
        beta2: 0.99,
        lr_warmup_steps: 10,
        lr_scheduler: LrScheduler::Linear,
        max_grad_norm: 10.0,
        ..AdamWConfig::default()
    }
}

pub(super) fn training(batches_per_step: usize) -> LoopConfig {
    LoopConfig {
        optimizer: adam(),
        batches_per_step,
        ema_decay: 0.98,
        log_every: 10,
        sample_every: 1_000_000,
        save_every_s: 0,
        keep: 2,
        ..LoopConfig::default()
    }
}

impl Objective for Gan {
    fn name(&self) -> &'static str {
        "gan"
    }

    fn players(&self) -> Vec<Player> {
        let discriminator = Player {
            name: "discriminator",
            params: self.discriminator.params.clone(),
            optimizer: AdamWConfig {
                learning_rate: 4e-3,
                max_grad_norm: 0.0,
                ..adam()
            },
            ema_decay: None,
        };
        let generator = Player::main("generator", self.generator.params.clone(), &training(1));
        vec![generator, discriminator]
    }

    fn buffers(&self) -> NamedParams {
        vec![
            ("answer".into(), self.answer.clone()),
            ("phase".into(), self.phase.clone()),
        ]
    }

    fn batch_size(&self) -> usize {
        BATCH
    }

    fn turns(&mut self, step: u64, progress: f32) -> Result<Vec<Turn>> {
        if let Some((last, stop)) = &self.stops_after {
            stop.store(step + 1 == *last, Ordering::Relaxed);
        }
        let mut first = Turn::of(DISCRIMINATOR);
        if step >= self.renewed_at && self.phase.tensor().item() == 0.0 {
            self.phase.set(&Tensor::full(1.0, &[1]));
            let other = Mlp::new("discriminator", [2, 64, 64, 1], 5);
            for ((_, param), (_, fresh)) in self.discriminator.params.iter().zip(&other.params) {
                param.set(&fresh.tensor());
            }
            first.restart = true;
        }
        let generator = Turn {
            lr_progress: Some(progress * progress),
            ..Turn::of(GENERATOR)
        };
        Ok(vec![first, Turn::of(DISCRIMINATOR), generator])
    }

    fn loss(&self, batch: Batch) -> Result<Loss> {
        Ok(match batch.player {
            GENERATOR => self.generator_loss(batch.number),
            _ => self.discriminator_loss(batch.number),
        })
    }

    fn updated(&mut self, player: usize, observed: &[f32]) {
        if player == DISCRIMINATOR {
            let value = Tensor::from_vec(observed.to_vec(), &[1]);
            self.answer.change(|answer| ema_update(answer, &value, 0.9));
        }
    }

    fn samples(&self) -> Result<Option<Picture>> {
        Ok(None)
    }
}

fn train(gan: &mut Gan, dir: &Path, steps: u64, resume: bool) {
    let mut options = RunOptions::alone(Budget::steps(steps), resume);
    run(gan, &training(1), dir, &mut options).unwrap();
}

#[test]
fn a_gan_finds_every_mode_of_a_mixture() {
    let folder = Scratch::new("gan");
    let mut gan = Gan::new(u64::MAX);
    let mut options = RunOptions::alone(Budget::steps(2000), false);
    let config = LoopConfig {
        save_every_s: 1000,
        ..training(1)
    };
    let summary = run(&mut gan, &config, &folder.join("run"), &mut options).unwrap();
    // The first player's samples, though the other one had twice as many turns.
    assert_eq!((summary.steps, summary.samples), (2000, 2000 * BATCH as u64));

    let count = 4000;
    let samples = no_grad(|| gan.fake(u64::MAX >> 8, count));
    let mut near = [0usize; 4];
    for point in samples.data().chunks_exact(2) {
        let distance = |mode: &[f32; 2]| (point[0] - mode[0]).hypot(point[1] - mode[1]);
        if let Some(mode) = MODES.iter().position(|mode| distance(mode) < 4.0 * DEVIATION) {
            near[mode] += 1;
        }
    }
    let all: usize = near.iter().sum();
    println!("samples near each mode: {near:?} of {count}");
    assert!(all > count * 8 / 10, "{near:?} of {count} are near a mode");
    assert!(
        near.iter().all(|n| *n > count / 10),
        "{near:?} of {count}: a mode is missing"
    );

    let text = std::fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    for tag in [
        "generator/loss",
        "generator/lr",
        "discriminator/loss",
        "discriminator/grad_norm",
        "discriminator/answer",
    ] {
        assert!(last[tag].is_number(), "{tag} is not in {last}");
    }
}

/// Set where this test is the process that is to be killed.
const CHILD: &str = "PRIMA_TEST_GAN_RUN";
const STEPS: u64 = 400;

#[test]
fn a_run_that_is_killed_resumes_and_ends_with_the_same_bits() {
    // The discriminator is replaced before the run is killed.
    let gan = || Gan::new(20);
    if let Some(dir) = std::env::var_os(CHILD) {
        train(&mut gan(), Path::new(&dir), STEPS, false);
        return;
    }
    let folder = Scratch::new("killed");
    let (killed, whole) = (folder.join("killed"), folder.join("whole"));
    let name = "tests::players::a_run_that_is_killed_resumes_and_ends_with_the_same_bits";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(CHILD, &killed)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    while saved_step(&killed) < 60 {
        assert!(Instant::now() < deadline, "the run does not get on");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let at = saved_step(&killed);
    assert!(at < STEPS, "the run was over before it could be killed");
    train(&mut gan(), &killed, STEPS, true);
    train(&mut gan(), &whole, STEPS, false);
    println!("killed after step {at} of {STEPS}");
    let (killed, whole) = (saved(&killed), saved(&whole));
    assert_eq!(killed.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
    for (key, values) in &whole {
        assert!(killed[key] == *values, "{key} differs");
    }
    assert_eq!(whole["turns"], [0.0, 3.0 * STEPS as f32]);
    assert_eq!(whole["optimizer_step.discriminator"], [0.0, 2.0 * (STEPS - 20) as f32]);
    assert_eq!(whole["buffer.phase"], [1.0]);
    assert!(!whole.contains_key("ema.discriminator.0.weight"));
}

#[test]
fn processes_share_the_turns_of_every_player() {
    let folder = Scratch::new("shared");
    in_a_group_of_two(Budget::steps(30), |_, mut options| {
        // As many threads a batch as where they are computed side by side: sums are taken in the same order.
        let thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        thread.install(|| run(&mut Gan::new(10), &training(1), &folder.join("group"), &mut options).unwrap());
    });
    let mut options = RunOptions::alone(Budget::steps(30), false);
    run(&mut Gan::new(10), &training(2), &folder.join("one"), &mut options).unwrap();
    let (group, one) = (saved(&folder.join("group")), saved(&folder.join("one")));
    assert!(
        group["turns"] == [0.0, 90.0] && group == one,
        "two processes do not end where one with two batches does"
    );
}

#[test]
fn two_parameters_of_one_name_are_refused() {
    let folder = Scratch::new("names");
    let mut gan = Gan::new(u64::MAX);
    gan.discriminator = Mlp::new("generator", [2, 64, 64, 1], 2);
    let mut options = RunOptions::alone(Budget::steps(1), false);
    let error = run(&mut gan, &training(1), &folder.join("run"), &mut options).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("two parameters are called generator.0.weight"),
        "{error}"
    );
}
