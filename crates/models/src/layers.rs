//! The parametrised layers that every network is made of.

use crate::adapters::{self, Adapter};
use prima_checkpoint::{Error, Init, ParamSource};
use prima_tensor::bands::{GroupStatistics, Piece};
use prima_tensor::{Activation, Conv2d, DType, Param, Tensor, activation, add};

/// How a layer's weight starts when it is trained from scratch.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    /// torch's default for the layer.
    Default,
    /// Zero: the last layer of a residual branch, which then starts as the identity.
    Zero,
    /// Normal weights, zero bias.
    Normal(f32),
}

impl Start {
    fn weight(self, fan_in: usize) -> Init {
        match self {
            Self::Default => Init::FanIn(fan_in),
            Self::Zero => Init::Zeros,
            Self::Normal(std) => Init::Normal(std),
        }
    }

    fn bias(self, fan_in: usize) -> Init {
        match self {
            Self::Default => Init::FanIn(fan_in),
            Self::Zero | Self::Normal(_) => Init::Zeros,
        }
    }
}

/// `y = x Wᵀ + b` over the last axis.
#[derive(Clone)]
pub(crate) struct Linear {
    weight: Param,
    bias: Option<Param>,
}

impl Linear {
    pub fn new(
        source: &mut dyn ParamSource,
        name: &str,
        inputs: usize,
        outputs: usize,
        bias: bool,
        start: Start,
    ) -> Result<Self, Error> {
        let weight = source.param(&format!("{name}.weight"), &[outputs, inputs], start.weight(inputs))?;
        let bias = bias
            .then(|| source.param(&format!("{name}.bias"), &[outputs], start.bias(inputs)))
            .transpose()?;
        Ok(Self { weight, bias })
    }

    /// The number of the weight's value, if it is frozen.
    pub fn frozen_version(&self) -> Option<u64> {
        adapters::version(&self.weight).filter(|_| !self.weight.is_trainable())
    }

    /// What products with the weight round their factors to.
    pub fn products_dtype(&self) -> DType {
        self.weight.products_dtype()
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.apply(x, Activation::None, None)
    }

    pub fn activated(&self, x: &Tensor, activation: Activation) -> Tensor {
        self.apply(x, activation, None)
    }

    pub fn plus(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        self.apply(x, Activation::None, Some(residual))
    }

    fn apply(&self, x: &Tensor, act: Activation, residual: Option<&Tensor>) -> Tensor {
        let Some(adapter) = adapters::of(&self.weight) else {
            return prima_tensor::linear(x, &self.weight, self.bias.as_ref(), act, residual);
        };
        let bias = adapter.bias.as_ref().or(self.bias.as_ref());
        adapted(act, residual, |residual| {
            let added = adapter.linear(x, residual);
            prima_tensor::linear(x, &self.weight, bias, Activation::None, added.as_ref())
        })
    }
}

/// `act(plain(None)) + residual`, where `plain` adds what it is given.
fn adapted(act: Activation, residual: Option<&Tensor>, plain: impl Fn(Option<&Tensor>) -> Tensor) -> Tensor {
    if act == Activation::None {
        return plain(residual);
    }
    let out = activation(&plain(None), act);
    residual.map_or(out.clone(), |residual| add(&out, residual))
}

/// A convolution over `[B, H, W, C]`.
#[derive(Clone)]
pub(crate) struct Conv {
    weight: Param,
    bias: Option<Param>,
    geometry: Conv2d,
}

impl Conv {
    pub fn new(
        source: &mut dyn ParamSource,
        name: &str,
        [inputs, outputs, kernel]: [usize; 3],
        geometry: Conv2d,
        bias: bool,
        start: Start,
    ) -> Result<Self, Error> {
        let fan_in = inputs * kernel * kernel;
        let shape = [outputs, inputs, kernel, kernel];
        let weight = source.param(&format!("{name}.weight"), &shape, start.weight(fan_in))?;
        let bias = bias
            .then(|| source.param(&format!("{name}.bias"), &[outputs], start.bias(fan_in)))
            .transpose()?;
        Ok(Self { weight, bias, geometry })
    }

    /// [`of_doubled`](Self::of_doubled) is not asked for.
    pub fn of_one_size(self) -> Self {
        if self.geometry == Conv2d::padded(1) {
            self.weight.sums_weights();
        }
        self
    }

    /// Stride 1, size-preserving (`kernel` odd), with bias.
    pub fn same(
        source: &mut dyn ParamSource,
        name: &str,
        [inputs, outputs, kernel]: [usize; 3],
        start: Start,
    ) -> Result<Self, Error> {
        Self::new(
            source,
            name,
            [inputs, outputs, kernel],
            Conv2d::padded(kernel / 2),
            true,
            start,
        )
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.apply(x, Activation::None, None)
    }

    pub fn activated(&self, x: &Tensor, activation: Activation) -> Tensor {
        self.apply(x, activation, None)
    }

    pub fn plus(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        self.apply(x, Activation::None, Some(residual))
    }

    /// Channels of the result.
    pub fn outputs(&self) -> usize {
        self.weight.shape()[0]
    }

    /// Of the picture doubled by repeating its pixels; for a 3x3 kernel that keeps the size.
    pub fn of_doubled(&self, x: &Tensor) -> Tensor {
        debug_assert_eq!(self.geometry, Conv2d::padded(1));
        let adapter = adapters::of(&self.weight);
        let bias = adapter.as_ref().and_then(|adapter| adapter.bias.as_ref());
        let out = prima_tensor::upsample_conv2d(x, &self.weight, bias.or(self.bias.as_ref()));
        let added = adapter.and_then(|adapter| adapter.conv(x, self.kernel(), self.geometry, true, Some(&out)));
        added.unwrap_or(out)
    }

    fn kernel(&self) -> [usize; 2] {
        let shape = self.weight.shape();
        [shape[2], shape[3]]
    }

    fn apply(&self, x: &Tensor, act: Activation, residual: Option<&Tensor>) -> Tensor {
        let Some(adapter) = adapters::of(&self.weight) else {
            return prima_tensor::conv2d(x, &self.weight, self.bias.as_ref(), self.geometry, act, residual);
        };
        let bias = adapter.bias.as_ref().or(self.bias.as_ref());
        adapted(act, residual, |residual| {
            let added = adapter.conv(x, self.kernel(), self.geometry, false, residual);
            prima_tensor::conv2d(x, &self.weight, bias, self.geometry, Activation::None, added.as_ref())
        })
    }
}

/// GroupNorm over channels-last activations.
#[derive(Clone)]
pub(crate) struct GroupNorm {
    gamma: Param,
    beta: Param,
    groups: usize,
    eps: f32,
}

impl GroupNorm {
    pub fn new(
        source: &mut dyn ParamSource,
        name: &str,
        channels: usize,
        groups: usize,
        eps: f32,
    ) -> Result<Self, Error> {
        if groups == 0 || !channels.is_multiple_of(groups) {
            let message = format!("norm_num_groups = {groups} does not divide the {channels} channels of {name}");
            return Err(crate::config::invalid(message));
        }
        let gamma = source.param(&format!("{name}.weight"), &[channels], Init::Ones)?;
        let beta = source.param(&format!("{name}.bias"), &[channels], Init::Zeros)?;
        Ok(Self {
            gamma,
            beta,
            groups,
            eps,
        })
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.apply(x, false)
    }

    fn apply(&self, x: &Tensor, silu: bool) -> Tensor {
        let [gamma, beta] = norm_values(&self.gamma, &self.beta);
        prima_tensor::group_norm(x, &gamma, &beta, self.groups, self.eps, silu)
    }

    /// Of the picture that `bands` are, one below the other.
    pub fn statistics(&self, bands: &[&Tensor]) -> GroupStatistics {
        GroupStatistics::of(bands, self.groups, self.eps)
    }

    /// [`silu`](Self::silu) of some rows of the picture that has these statistics.
    pub fn silu_of(&self, statistics: &GroupStatistics, pieces: &[Piece]) -> Tensor {
        statistics.silu(pieces, &self.gamma, &self.beta)
    }

    /// Normalised, then SiLU.
    pub fn silu(&self, x: &Tensor) -> Tensor {
        self.apply(x, true)
    }

    /// The same of what is not needed any more, in its place where that is possible.
    pub fn silu_within(&self, x: Tensor) -> Tensor {
        let [gamma, beta] = norm_values(&self.gamma, &self.beta);
        prima_tensor::group_norm_within(x, &gamma, &beta, self.groups, self.eps, true)
    }
}

/// LayerNorm over the last axis.
#[derive(Clone)]
pub(crate) struct LayerNorm {
    gamma: Param,
    beta: Param,
    eps: f32,
}

impl LayerNorm {
    pub fn new(source: &mut dyn ParamSource, name: &str, channels: usize, eps: f32) -> Result<Self, Error> {
        let gamma = source.param(&format!("{name}.weight"), &[channels], Init::Ones)?;
        let beta = source.param(&format!("{name}.bias"), &[channels], Init::Zeros)?;
        Ok(Self { gamma, beta, eps })
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        let [gamma, beta] = norm_values(&self.gamma, &self.beta);
        prima_tensor::layer_norm(x, &gamma, &beta, self.eps)
    }
}

/// A norm's weight and bias, or what an adapter has in their place.
fn norm_values(gamma: &Param, beta: &Param) -> [Param; 2] {
    let Adapter { weight, bias, .. } = adapters::of(gamma).unwrap_or_default();
    [
        weight.unwrap_or_else(|| gamma.clone()),
        bias.unwrap_or_else(|| beta.clone()),
    ]
}
