//! The state of a run on disk, in one safetensors file:
//!
//! | tensor | what it is |
//! |---|---|
//! | `param.KEY`, `exp_avg.KEY`, `exp_avg_sq.KEY` | every player's parameters and AdamW's moments |
//! | `ema.KEY` | the averages of the players that have one |
//! | `buffer.KEY` | the objective's [buffers](crate::objective::Objective::buffers) |
//! | `optimizer_step`, `optimizer_step.PLAYER` | updates of the first player, and of each other one |
//! | `step`, `turns`, `samples`, `elapsed_s` | where the run stands |
//!
//! Batches are functions of (seed, number), so the turns are also the position in the data: a resumed run repeats an
//! uninterrupted one exactly.

use super::learner::Learner;
use crate::error::{Error, Result};
use crate::params::NamedParams;
use prima_checkpoint::{TensorFile, write_safetensors};
use prima_tensor::{DType, Param, Tensor};
use std::path::Path;

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Position {
    /// Steps done.
    pub(super) step: u64,
    /// Turns done, of all players.
    pub(super) turns: u64,
    /// Samples that the first player has seen, whatever the batch size was.
    pub(super) samples: u64,
    /// Seconds of training so far, over all runs.
    pub(super) elapsed_s: f64,
}

/// Writes everything needed to go on.
pub(super) fn save(path: &Path, learners: &[Learner], buffers: &NamedParams, position: Position) -> Result<()> {
    let mut entries: NamedParams = Vec::new();
    let mut push = |part: &str, key: &str, tensor: &Tensor| {
        entries.push((format!("{part}.{key}"), Param::new(tensor.clone())));
    };
    for learner in learners {
        for (i, (key, param)) in learner.params().iter().enumerate() {
            let moments = &learner.optimizer.moments[i];
            push("param", key, &param.tensor());
            if let Some(ema) = &learner.ema {
                push("ema", key, &ema.shadow[i]);
            }
            push("exp_avg", key, &moments.exp_avg);
            push("exp_avg_sq", key, &moments.exp_avg_sq);
        }
    }
    for (key, param) in buffers {
        push("buffer", key, &param.tensor());
    }
    let mut counts = vec![
        ("step".to_owned(), position.step),
        ("turns".to_owned(), position.turns),
        ("samples".to_owned(), position.samples),
    ];
    let updates = learners.iter().enumerate();
    counts.extend(updates.map(|(i, learner)| (optimizer_step(i, learner), learner.optimizer.step)));
    for (key, count) in counts {
        entries.push((key, Param::new(counter(count))));
    }
    let elapsed_s = Tensor::from_vec(vec![position.elapsed_s as f32], &[1]);
    entries.push(("elapsed_s".into(), Param::new(elapsed_s)));
    Ok(write_safetensors(path, &entries, DType::F32)?)
}

/// Puts a saved state back into freshly built networks.
pub(super) fn load(path: &Path, learners: &mut [Learner], buffers: &NamedParams) -> Result<Position> {
    let file = TensorFile::open(path)?;
    let read = |key: &str, shape: &[usize]| read(&file, path, key, shape);
    let read_count = |key: &str| Ok::<_, Error>(count(&read(key, &[2])?));
    for (index, learner) in learners.iter_mut().enumerate() {
        learner.optimizer.step = read_count(&optimizer_step(index, learner))?;
        let params = learner.params().clone();
        for (i, (key, param)) in params.iter().enumerate() {
            let shape = param.shape();
            param.set(&read(&format!("param.{key}"), &shape)?);
            if let Some(ema) = &mut learner.ema {
                ema.shadow[i] = read(&format!("ema.{key}"), &shape)?;
            }
            let moments = &mut learner.optimizer.moments[i];
            moments.exp_avg = read(&format!("exp_avg.{key}"), &shape)?;
            moments.exp_avg_sq = read(&format!("exp_avg_sq.{key}"), &shape)?;
        }
    }
    for (key, param) in buffers {
        param.set(&read(&format!("buffer.{key}"), &param.shape())?);
    }
    let step = read_count("step")?;
    // States of before there were players have none: each step was one turn.
    let counts_turns = file.tensors().contains_key("turns");
    Ok(Position {
        step,
        turns: if counts_turns { read_count("turns")? } else { step },
        samples: read_count("samples")?,
        elapsed_s: f64::from(read("elapsed_s", &[1])?.item()),
    })
}

/// The steps that a saved state has done.
pub(super) fn saved_step(path: &Path) -> Result<u64> {
    Ok(count(&read(&TensorFile::open(path)?, path, "step", &[2])?))
}

fn optimizer_step(index: usize, learner: &Learner) -> String {
    match index {
        0 => "optimizer_step".to_owned(),
        _ => format!("optimizer_step.{}", learner.name),
    }
}

/// Sets `params` to the averages in a saved state.
pub(crate) fn load_average(path: &Path, params: &NamedParams) -> Result<()> {
    let file = TensorFile::open(path)?;
    for (key, param) in params {
        param.set(&read(&file, path, &format!("ema.{key}"), &param.shape())?);
    }
    Ok(())
}

fn read(file: &TensorFile, path: &Path, key: &str, shape: &[usize]) -> Result<Tensor> {
    let tensor = file.read(key)?;
    if tensor.shape() == shape {
        return Ok(tensor);
    }
    let found = tensor.shape();
    let message = format!("{key} has shape {found:?}, the configured network wants {shape:?}");
    Err(Error::file(path, message))
}

/// A count as two exact f32: the high and the low 24 bits.
fn counter(n: u64) -> Tensor {
    Tensor::from_vec(vec![(n >> 24) as f32, (n & 0xff_ffff) as f32], &[2])
}

fn count(t: &Tensor) -> u64 {
    ((t.data()[0] as u64) << 24) | t.data()[1] as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_exact_beyond_the_integers_of_f32() {
        for n in [0, 7, (1 << 24) + 1, (1 << 40) + 12345] {
            assert_eq!(count(&counter(n)), n);
        }
    }
}
