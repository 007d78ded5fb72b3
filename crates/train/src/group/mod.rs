//! Data parallel training: several processes, each with batches of its own, that add up their gradients before each update.
//! They hold the same weights all the time, so that only gradients travel. docs/training-at-scale.md says how to start them.

mod launch;
mod star;

pub use launch::Launch;

use crate::error::{Error, Result};
use prima_tensor::gpu::Peers;
use prima_tensor::{Device, Gradients, Param, Tensor};
use star::Star;
use std::time::Duration;

/// Values of one bucket of gradients, 25 MiB: enough that the connection's latency does not matter, and little to hold twice.
const BUCKET: usize = 25 << 18;
/// How long processes wait for each other unless `PRIMA_PEER_TIMEOUT_S` says otherwise. Rank 0 may be drawing samples.
const TIMEOUT_S: u64 = 600;

/// What adds up one bucket over all processes; each gets the same bits.
trait AllReduce {
    fn sum(&mut self, bucket: Tensor) -> Result<Tensor>;
}

/// Between GPUs.
impl AllReduce for Box<dyn Peers> {
    fn sum(&mut self, bucket: Tensor) -> Result<Tensor> {
        Ok(Peers::sum(&**self, &bucket))
    }
}

/// Between CPUs.
struct OverTcp<'a> {
    star: &'a mut Star,
    is_first: bool,
}

impl AllReduce for OverTcp<'_> {
    fn sum(&mut self, bucket: Tensor) -> Result<Tensor> {
        let shape = bucket.shape().to_vec();
        let mut values = bucket.into_vec();
        self.star.sum(self.is_first, &mut values)?;
        Ok(Tensor::from_vec(values, &shape))
    }
}

/// The processes of a run.
pub struct Group {
    launch: Launch,
    /// `None`: this process is alone.
    star: Option<Star>,
    /// Where a GPU computes.
    gpus: Option<Box<dyn Peers>>,
}

impl Group {
    pub fn alone() -> Self {
        Self {
            launch: Launch::alone(),
            star: None,
            gpus: None,
        }
    }

    /// Finds the other processes. Ops compute where they will during training.
    pub fn join(launch: Launch) -> Result<Self> {
        if launch.world == 1 {
            return Ok(Self::alone());
        }
        let mut star = Star::connect(&launch, timeout()?)?;
        let gpus = match Device::current().gpu() {
            Some(gpu) => {
                let mut id = if launch.is_first() { gpu.new_group()? } else { [0; 128] };
                star.broadcast(launch.is_first(), &mut id)?;
                Some(gpu.clone().join_group(id, launch.rank, launch.world)?)
            }
            None => None,
        };
        Ok(Self {
            launch,
            star: Some(star),
            gpus,
        })
    }

    /// Number of processes.
    pub fn world(&self) -> usize {
        self.launch.world
    }

    pub fn rank(&self) -> usize {
        self.launch.rank
    }

    /// Does this process log, save and draw?
    pub fn is_first(&self) -> bool {
        self.launch.is_first()
    }

    /// Rank 0's values in place of this process's own.
    pub(crate) fn follow_first<const N: usize>(&mut self, mut values: [u64; N]) -> Result<[u64; N]> {
        if let Some(star) = &mut self.star {
            star.broadcast(self.launch.is_first(), bytemuck::cast_slice_mut(&mut values))?;
        }
        Ok(values)
    }

    /// The sums of a few numbers, as many in each process.
    pub(crate) fn sum(&mut self, values: &mut [f32]) -> Result<()> {
        if let Some(star) = &mut self.star {
            star.sum(self.launch.is_first(), values)?;
        }
        Ok(())
    }

    /// Replaces the gradients of `params` by their sums.
    pub(crate) fn sum_gradients(&mut self, gradients: &mut Gradients, params: &[(String, Param)]) -> Result<()> {
        let is_first = self.is_first();
        let Some(star) = &mut self.star else { return Ok(()) };
        let params: Vec<&Param> = params.iter().map(|(_, param)| param).collect();
        let mut over_tcp = OverTcp { star, is_first };
        let backend: &mut dyn AllReduce = match &mut self.gpus {
            Some(gpus) => gpus,
            None => &mut over_tcp,
        };
        gradients.in_buckets(&params, BUCKET, |bucket| backend.sum(bucket))
    }
}

fn timeout() -> Result<Duration> {
    const NAME: &str = "PRIMA_PEER_TIMEOUT_S";
    let Ok(text) = std::env::var(NAME) else {
        return Ok(Duration::from_secs(TIMEOUT_S));
    };
    let seconds: Option<u64> = text.parse().ok().filter(|s| (1..=86400).contains(s));
    let seconds = seconds.ok_or_else(|| Error::Launch(format!("{NAME} is {text:?}, expected 1 to 86400 seconds")))?;
    Ok(Duration::from_secs(seconds))
}
