//! The batches of a turn: their losses and gradients, side by side or one after the other.

use crate::error::{Error, Result};
use crate::objective::{self, Loss, Objective};
use prima_tensor::{Device, Gradients, recomputing};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::ops::Range;

/// How batches are computed in this process.
pub(super) struct Batches {
    count: usize,
    recompute: bool,
    /// One for each batch; empty where they are computed one after the other.
    pools: Vec<ThreadPool>,
}

/// The sums over several batches.
#[derive(Default)]
pub(super) struct Sum {
    pub(super) loss: f32,
    pub(super) metrics: Vec<(&'static str, f32)>,
    pub(super) observed: Vec<f32>,
    pub(super) gradients: Gradients,
}

impl Batches {
    pub(super) fn new(count: usize, recompute: bool) -> Result<Self> {
        Ok(Self {
            count: count.max(1),
            recompute,
            pools: single_threads(count)?,
        })
    }

    /// Of one turn in this process.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The sum of a turn's batches, of which process `rank` of `world` has its part. `first` is the first of the turn.
    pub(super) fn sum(
        &self,
        objective: &dyn Objective,
        first: objective::Batch,
        [rank, world]: [usize; 2],
    ) -> Result<Sum> {
        let count = self.count as u64;
        let start = (first.number * world as u64 + rank as u64) * count;
        let batch = move |number| objective::Batch { number, ..first };
        let recompute = self.recompute;
        let compute = move |number| Sum::of(objective, batch(number), recompute);
        let mut sum = Sum::default();
        if self.pools.is_empty() {
            for number in start..start + count {
                sum.add(compute(number)?);
            }
            return Ok(sum);
        }
        for batch in self.side_by_side(start..start + count, &compute) {
            sum.add(batch?);
        }
        Ok(sum)
    }

    fn side_by_side(&self, numbers: Range<u64>, compute: &(dyn Fn(u64) -> Result<Sum> + Sync)) -> Vec<Result<Sum>> {
        std::thread::scope(|scope| {
            let running: Vec<_> = numbers
                .zip(&self.pools)
                .map(|(number, pool)| scope.spawn(move || pool.install(|| compute(number))))
                .collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    }
}

impl Sum {
    fn of(objective: &dyn Objective, batch: objective::Batch, recompute: bool) -> Result<Self> {
        let Loss {
            total,
            metrics,
            observed,
        } = recomputing(recompute, || objective.loss(batch))?;
        let gradients = total.backward();
        // The tape, which shares the weights' storage, ends here: the optimizer can work in place. The loss is read last, so
        // that a device has all its work by then.
        Ok(Self {
            loss: total.item(),
            metrics,
            observed,
            gradients,
        })
    }

    fn add(&mut self, other: Self) {
        self.loss += other.loss;
        self.metrics.extend(other.metrics);
        if self.observed.is_empty() {
            self.observed = other.observed;
        } else {
            self.observed
                .iter_mut()
                .zip(&other.observed)
                .for_each(|(sum, value)| *sum += value);
        }
        self.gradients.add(other.gradients);
    }
}

/// A pool of one thread for each of several batches, where they are computed side by side.
fn single_threads(batches: usize) -> Result<Vec<ThreadPool>> {
    if batches < 2 || Device::current().is_gpu() {
        return Ok(Vec::new());
    }
    (0..batches)
        .map(|_| ThreadPoolBuilder::new().num_threads(1).build())
        .collect::<std::result::Result<_, _>>()
        .map_err(|e| Error::Config(format!("cannot start a thread for each of {batches} batches: {e}")))
}
