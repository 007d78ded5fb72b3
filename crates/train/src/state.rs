//! The state of a run on disk: parameters, optimizer moments, EMA and the step, in one
//! safetensors file that is replaced atomically. Batches are functions of (seed, step), so the
//! step is also the position in the data: a resumed run repeats an uninterrupted one exactly.

use crate::ema::Ema;
use crate::error::{Error, Result};
use crate::optimizer::AdamW;
use prima_checkpoint::{TensorFile, write_safetensors};
use prima_tensor::{DType, Param, Tensor};
use std::path::Path;

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Position {
    /// Steps done.
    pub step: u64,
    /// Samples seen, whatever the batch size was.
    pub samples: u64,
    /// Seconds of training so far, over all sessions.
    pub elapsed_s: f64,
}

/// Writes everything needed to go on.
pub fn save(path: &Path, optimizer: &AdamW, ema: &Ema, position: Position) -> Result<()> {
    let mut entries: Vec<(String, Param)> = Vec::new();
    let params = optimizer.params();
    for (i, (key, param)) in params.iter().enumerate() {
        let moments = &optimizer.moments[i];
        let parts = [
            ("ema", &ema.shadow[i]),
            ("exp_avg", &moments.exp_avg),
            ("exp_avg_sq", &moments.exp_avg_sq),
        ];
        entries.push((format!("param.{key}"), param.clone()));
        for (part, tensor) in parts {
            entries.push((format!("{part}.{key}"), Param::new(tensor.clone())));
        }
    }
    let counts = [
        ("step", position.step),
        ("samples", position.samples),
        ("optimizer_step", optimizer.step),
    ];
    for (key, count) in counts {
        entries.push((key.into(), Param::new(counter(count))));
    }
    entries.push((
        "elapsed_s".into(),
        Param::new(Tensor::from_vec(vec![position.elapsed_s as f32], &[1])),
    ));
    Ok(write_safetensors(path, &entries, DType::F32)?)
}

/// Puts a saved state back into freshly built networks.
pub fn load(path: &Path, optimizer: &mut AdamW, ema: &mut Ema) -> Result<Position> {
    let file = TensorFile::open(path)?;
    let read = |key: &str, shape: &[usize]| -> Result<Tensor> {
        let tensor = file.read(key)?;
        if tensor.shape() == shape {
            Ok(tensor)
        } else {
            let message = format!(
                "{key} has shape {:?}, the configured network wants {shape:?}",
                tensor.shape()
            );
            Err(Error::file(path, message))
        }
    };
    let params: Vec<(String, Param)> = optimizer.params().to_vec();
    for (i, (key, param)) in params.iter().enumerate() {
        let shape = param.shape();
        param.set(&read(&format!("param.{key}"), &shape)?);
        ema.shadow[i] = read(&format!("ema.{key}"), &shape)?;
        optimizer.moments[i].exp_avg = read(&format!("exp_avg.{key}"), &shape)?;
        optimizer.moments[i].exp_avg_sq = read(&format!("exp_avg_sq.{key}"), &shape)?;
    }
    optimizer.step = count(&read("optimizer_step", &[2])?);
    Ok(Position {
        step: count(&read("step", &[2])?),
        samples: count(&read("samples", &[2])?),
        elapsed_s: f64::from(read("elapsed_s", &[1])?.item()),
    })
}

/// Sets `params` to one part ("ema" or "param") of a saved state.
pub fn load_weights(path: &Path, part: &str, params: &[(String, Param)]) -> Result<()> {
    let file = TensorFile::open(path)?;
    for (key, param) in params {
        let tensor = file.read(&format!("{part}.{key}"))?;
        if tensor.shape() != param.shape() {
            let message = format!(
                "{part}.{key} has shape {:?}, the configured network wants {:?}",
                tensor.shape(),
                param.shape()
            );
            return Err(Error::file(path, message));
        }
        param.set(&tensor);
    }
    Ok(())
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
