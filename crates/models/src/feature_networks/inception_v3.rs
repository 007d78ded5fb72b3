//! Inception v3 as TensorFlow trained it in 2015, whose pooled features the Frechet inception distance is measured with (Szegedy et
//! al. 2016; Heusel et al. 2017). Keys and arithmetic are those of pytorch-fid, of which `scripts/eval/inception.py` turns the
//! weights into safetensors: average pools that do not count their padding, and a maximum in the last block.

use prima_checkpoint::{Error, Init, ParamSource, Reader};
use prima_tensor::{Activation, Conv2d, Param, Tensor, avg_pool_global, concat_channels, conv2d};
use std::path::Path;

const BATCH_NORM_EPS: f32 = 1e-3;

/// The network with its batch norms folded into the convolutions.
pub struct InceptionV3 {
    stem: Vec<Stem>,
    blocks: Vec<Block>,
    features: usize,
}

enum Stem {
    Conv(Unit),
    /// The greatest of 3x3, every second pixel.
    Pool,
}

/// A convolution, its batch norm and a ReLU.
struct Unit {
    weight: Param,
    bias: Param,
    geometry: Conv2d,
}

/// What a branch begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pool {
    None,
    /// The mean of those of 3x3 that are there.
    Mean,
    /// The greatest of 3x3.
    Greatest,
    /// The same of every second pixel without padding, which is all of the branch.
    Halving,
}

/// One after the other; the last step may fork into two, side by side.
struct Branch {
    pool: Pool,
    units: Vec<Unit>,
    fork: Vec<Unit>,
}

struct Block {
    branches: Vec<Branch>,
}

/// A unit before it is loaded: its name, channels, kernel (height, width), stride and padding (rows, columns).
struct Shape(&'static str, usize, [usize; 2], usize, [usize; 2]);

const fn plain(name: &'static str, channels: usize) -> Shape {
    Shape(name, channels, [1, 1], 1, [0, 0])
}

const fn square(name: &'static str, channels: usize, kernel: usize) -> Shape {
    Shape(name, channels, [kernel; 2], 1, [kernel / 2; 2])
}

const fn halving(name: &'static str, channels: usize) -> Shape {
    Shape(name, channels, [3, 3], 2, [0, 0])
}

const fn wide(name: &'static str, channels: usize, kernel: usize) -> Shape {
    Shape(name, channels, [1, kernel], 1, [0, kernel / 2])
}

const fn tall(name: &'static str, channels: usize, kernel: usize) -> Shape {
    Shape(name, channels, [kernel, 1], 1, [kernel / 2, 0])
}

/// Reads units with all channels divided by some number.
struct Builder<'a> {
    source: &'a mut dyn ParamSource,
    divisor: usize,
}

impl Builder<'_> {
    /// `name`'s unit on `inputs` channels, and how many it gives.
    fn unit(&mut self, block: &str, shape: &Shape, inputs: usize) -> Result<(Unit, usize), Error> {
        let Shape(name, channels, [height, width], stride, [rows, columns]) = *shape;
        let outputs = channels / self.divisor;
        let prefix = if block.is_empty() {
            name.to_owned()
        } else {
            format!("{block}.{name}")
        };
        let kernel = [outputs, inputs, height, width];
        let fan_in = inputs * height * width;
        let weight = self
            .source
            .param(&format!("{prefix}.conv.weight"), &kernel, Init::FanIn(fan_in))?;
        let mut statistic = |name: &str, init| {
            let param = self.source.param(&format!("{prefix}.bn.{name}"), &[outputs], init)?;
            Ok::<_, Error>(param.tensor().into_vec())
        };
        let (gamma, beta) = (statistic("weight", Init::Ones)?, statistic("bias", Init::Zeros)?);
        let (mean, variance) = (
            statistic("running_mean", Init::Zeros)?,
            statistic("running_var", Init::Ones)?,
        );
        let mut folded = weight.tensor().into_vec();
        let mut bias = Vec::with_capacity(outputs);
        for (i, row) in folded.chunks_mut(fan_in).enumerate() {
            let scale = gamma[i] / (variance[i] + BATCH_NORM_EPS).sqrt();
            for w in row {
                *w *= scale;
            }
            bias.push(beta[i] - mean[i] * scale);
        }
        let unit = Unit {
            weight: Param::new(Tensor::from_vec(folded, &kernel)),
            bias: Param::new(Tensor::from_vec(bias, &[outputs])),
            geometry: Conv2d {
                stride,
                padding: [rows, rows, columns, columns],
            },
        };
        Ok((unit, outputs))
    }

    fn branch(
        &mut self,
        block: &str,
        pool: Pool,
        units: &[Shape],
        fork: &[Shape],
        inputs: usize,
    ) -> Result<(Branch, usize), Error> {
        let (mut branch, mut channels) = (
            Branch {
                pool,
                units: Vec::new(),
                fork: Vec::new(),
            },
            inputs,
        );
        for shape in units {
            let (unit, outputs) = self.unit(block, shape, channels)?;
            branch.units.push(unit);
            channels = outputs;
        }
        let mut forked = 0;
        for shape in fork {
            let (unit, outputs) = self.unit(block, shape, channels)?;
            branch.fork.push(unit);
            forked += outputs;
        }
        Ok((branch, if fork.is_empty() { channels } else { forked }))
    }

    fn block(
        &mut self,
        name: &str,
        branches: &[(Pool, &[Shape], &[Shape])],
        inputs: usize,
    ) -> Result<(Block, usize), Error> {
        let (mut all, mut channels) = (Vec::new(), 0);
        for (pool, units, fork) in branches {
            let (branch, outputs) = self.branch(name, *pool, units, fork, inputs)?;
            all.push(branch);
            channels += outputs;
        }
        Ok((Block { branches: all }, channels))
    }
}

/// The parts of one block, by branch.
type Plan = Vec<(Pool, Vec<Shape>, Vec<Shape>)>;

/// 35x35: `pool` channels of the pooled branch.
fn plan_a(pool: usize) -> Plan {
    vec![
        (Pool::None, vec![plain("branch1x1", 64)], vec![]),
        (
            Pool::None,
            vec![plain("branch5x5_1", 48), square("branch5x5_2", 64, 5)],
            vec![],
        ),
        (
            Pool::None,
            vec![
                plain("branch3x3dbl_1", 64),
                square("branch3x3dbl_2", 96, 3),
                square("branch3x3dbl_3", 96, 3),
            ],
            vec![],
        ),
        (Pool::Mean, vec![plain("branch_pool", pool)], vec![]),
    ]
}

/// 35x35 to 17x17.
fn plan_b() -> Plan {
    vec![
        (Pool::None, vec![halving("branch3x3", 384)], vec![]),
        (
            Pool::None,
            vec![
                plain("branch3x3dbl_1", 64),
                square("branch3x3dbl_2", 96, 3),
                halving("branch3x3dbl_3", 96),
            ],
            vec![],
        ),
        (Pool::Halving, vec![], vec![]),
    ]
}

/// 17x17: `middle` channels inside.
fn plan_c(middle: usize) -> Plan {
    vec![
        (Pool::None, vec![plain("branch1x1", 192)], vec![]),
        (
            Pool::None,
            vec![
                plain("branch7x7_1", middle),
                wide("branch7x7_2", middle, 7),
                tall("branch7x7_3", 192, 7),
            ],
            vec![],
        ),
        (
            Pool::None,
            vec![
                plain("branch7x7dbl_1", middle),
                tall("branch7x7dbl_2", middle, 7),
                wide("branch7x7dbl_3", middle, 7),
                tall("branch7x7dbl_4", middle, 7),
                wide("branch7x7dbl_5", 192, 7),
            ],
            vec![],
        ),
        (Pool::Mean, vec![plain("branch_pool", 192)], vec![]),
    ]
}

/// 17x17 to 8x8.
fn plan_d() -> Plan {
    vec![
        (
            Pool::None,
            vec![plain("branch3x3_1", 192), halving("branch3x3_2", 320)],
            vec![],
        ),
        (
            Pool::None,
            vec![
                plain("branch7x7x3_1", 192),
                wide("branch7x7x3_2", 192, 7),
                tall("branch7x7x3_3", 192, 7),
                halving("branch7x7x3_4", 192),
            ],
            vec![],
        ),
        (Pool::Halving, vec![], vec![]),
    ]
}

/// 8x8.
fn plan_e(pool: Pool) -> Plan {
    vec![
        (Pool::None, vec![plain("branch1x1", 320)], vec![]),
        (
            Pool::None,
            vec![plain("branch3x3_1", 384)],
            vec![wide("branch3x3_2a", 384, 3), tall("branch3x3_2b", 384, 3)],
        ),
        (
            Pool::None,
            vec![plain("branch3x3dbl_1", 448), square("branch3x3dbl_2", 384, 3)],
            vec![wide("branch3x3dbl_3a", 384, 3), tall("branch3x3dbl_3b", 384, 3)],
        ),
        (pool, vec![plain("branch_pool", 192)], vec![]),
    ]
}

fn plans() -> Vec<(&'static str, Plan)> {
    vec![
        ("Mixed_5b", plan_a(32)),
        ("Mixed_5c", plan_a(64)),
        ("Mixed_5d", plan_a(64)),
        ("Mixed_6a", plan_b()),
        ("Mixed_6b", plan_c(128)),
        ("Mixed_6c", plan_c(160)),
        ("Mixed_6d", plan_c(160)),
        ("Mixed_6e", plan_c(192)),
        ("Mixed_7a", plan_d()),
        ("Mixed_7b", plan_e(Pool::Mean)),
        ("Mixed_7c", plan_e(Pool::Greatest)),
    ]
}

impl InceptionV3 {
    /// With the weights of a file that `scripts/eval/inception.py` wrote.
    pub fn open(weights: &Path) -> Result<Self, Error> {
        let mut reader = Reader::open(weights)?;
        let network = Self::new(&mut reader, 1)?;
        reader.finish()?;
        Ok(network)
    }

    /// With all channels divided by `divisor`, which divides 16: 1 is the network itself.
    pub fn new(source: &mut dyn ParamSource, divisor: usize) -> Result<Self, Error> {
        let mut builder = Builder { source, divisor };
        let units = [
            halving("Conv2d_1a_3x3", 32),
            Shape("Conv2d_2a_3x3", 32, [3, 3], 1, [0, 0]),
            square("Conv2d_2b_3x3", 64, 3),
            plain("Conv2d_3b_1x1", 80),
            Shape("Conv2d_4a_3x3", 192, [3, 3], 1, [0, 0]),
        ];
        let (mut stem, mut channels) = (Vec::new(), 3);
        for (i, shape) in units.iter().enumerate() {
            let (unit, outputs) = builder.unit("", shape, channels)?;
            stem.push(Stem::Conv(unit));
            if i == 2 || i == 4 {
                stem.push(Stem::Pool);
            }
            channels = outputs;
        }
        let mut blocks = Vec::new();
        for (name, plan) in plans() {
            let branches: Vec<_> = plan
                .iter()
                .map(|(pool, units, fork)| (*pool, &units[..], &fork[..]))
                .collect();
            let (block, outputs) = builder.block(name, &branches, channels)?;
            blocks.push(block);
            channels = outputs;
        }
        Ok(Self {
            stem,
            blocks,
            features: channels,
        })
    }

    /// How many features a picture has.
    pub fn features_len(&self) -> usize {
        self.features
    }

    /// Pictures `[B, H, W, 3]` in [-1, 1], of 299 x 299 pixels as it was trained, to features `[B, 2048]`.
    pub fn features(&self, pictures: &Tensor) -> Tensor {
        let mut x = pictures.clone();
        for part in &self.stem {
            x = match part {
                Stem::Conv(unit) => unit.forward(&x),
                Stem::Pool => greatest(&x, 2, 0),
            };
        }
        for block in &self.blocks {
            let parts: Vec<Tensor> = block.branches.iter().flat_map(|branch| branch.forward(&x)).collect();
            x = concat_channels(&parts.iter().collect::<Vec<_>>());
        }
        avg_pool_global(&x)
    }
}

impl Unit {
    fn forward(&self, x: &Tensor) -> Tensor {
        conv2d(x, &self.weight, Some(&self.bias), self.geometry, Activation::Relu, None)
    }
}

impl Branch {
    /// Its parts, whose channels come one after the other.
    fn forward(&self, x: &Tensor) -> Vec<Tensor> {
        let pooled = match self.pool {
            Pool::None => x.clone(),
            Pool::Mean => mean(x),
            Pool::Greatest => greatest(x, 1, 1),
            Pool::Halving => greatest(x, 2, 0),
        };
        let x = self.units.iter().fold(pooled, |x, unit| unit.forward(&x));
        if self.fork.is_empty() {
            return vec![x];
        }
        self.fork.iter().map(|unit| unit.forward(&x)).collect()
    }
}

/// Over windows of 3x3, `fold` of what is there and then `finish` of that and of how much that was.
fn pooled(
    x: &Tensor,
    stride: usize,
    padding: usize,
    start: f32,
    fold: impl Fn(f32, f32) -> f32,
    finish: impl Fn(f32, usize) -> f32,
) -> Tensor {
    let [batch, height, width, channels] = [x.dim(0), x.dim(1), x.dim(2), x.dim(3)];
    let out = |side: usize| (side + 2 * padding - 3) / stride + 1;
    let (rows, columns) = (out(height), out(width));
    let inside = |at: usize, side: usize| {
        let first = (at * stride) as isize - padding as isize;
        first.max(0) as usize..(first + 3).min(side as isize) as usize
    };
    let mut values = Vec::with_capacity(batch * rows * columns * channels);
    for picture in x.data().chunks_exact(height * width * channels) {
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            let (ys, xs) = (inside(row, height), inside(column, width));
            let mut sums = vec![start; channels];
            for (y, x) in ys.clone().flat_map(|y| xs.clone().map(move |x| (y, x))) {
                let pixel = &picture[(y * width + x) * channels..][..channels];
                sums.iter_mut()
                    .zip(pixel)
                    .for_each(|(sum, value)| *sum = fold(*sum, *value));
            }
            values.extend(sums.into_iter().map(|sum| finish(sum, ys.len() * xs.len())));
        }
    }
    Tensor::from_vec(values, &[batch, rows, columns, channels])
}

fn greatest(x: &Tensor, stride: usize, padding: usize) -> Tensor {
    pooled(x, stride, padding, f32::NEG_INFINITY, f32::max, |greatest, _| greatest)
}

fn mean(x: &Tensor) -> Tensor {
    pooled(x, 1, 1, 0.0, |a, b| a + b, |sum, count| sum / count as f32)
}
