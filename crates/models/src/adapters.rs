//! What changes layers without touching their weights: LoRA and its relatives. A layer's result gets a sum of products added,
//! `y = W x + b + Σ scale · F_n … F_1 x`, and vectors (biases, norms) are replaced.
//!
//! The base's parameters stay as they are, in whatever form they are kept, so what is taken away leaves no trace, and several
//! requests may be painted side by side, each with its own: a set of [`Adapters`] holds for what is computed
//! [`within`](Adapters::within) it, on that thread.

use prima_tensor::{Activation, Conv2d, Param, ParamId, Tensor, add, affine};
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// A product to be added to what a layer gives: weights that are applied one after the other. Each is `[outputs, inputs]` to
/// a linear layer; to a convolution `[outputs, inputs, kh, kw]`, one of them with the layer's own kernel and all others 1x1.
#[derive(Clone, Debug)]
pub struct Term {
    pub factors: Arc<[Param]>,
    pub scale: f32,
}

/// What becomes of one layer.
#[derive(Clone, Debug, Default)]
pub struct Adapter {
    pub terms: Vec<Term>,
    /// In place of a norm's own weight.
    pub weight: Option<Param>,
    /// In place of the layer's own bias, which it need not have.
    pub bias: Option<Param>,
}

/// Adapters by the weights of the layers that they change.
#[derive(Debug, Default)]
pub struct Adapters {
    layers: HashMap<ParamId, Adapter>,
    /// Kept, so that no other parameter gets one of these numbers.
    weights: Vec<Param>,
    /// See [`new`](Self::new).
    identity: u64,
    text_identity: u64,
}

thread_local! {
    static ACTIVE: RefCell<Option<Arc<Adapters>>> = const { RefCell::new(None) };
}

impl Adapters {
    /// `identity` is a number that no set of another effect has, and `text_identity` one that no set has of another effect on
    /// text encoders: 0 where there is none.
    pub fn new(identity: u64, text_identity: u64) -> Self {
        Self {
            identity,
            text_identity,
            ..Self::default()
        }
    }

    /// The adapter of the layer with this weight, which begins without effect.
    pub fn layer(&mut self, weight: &Param) -> &mut Adapter {
        if !self.layers.contains_key(&weight.id()) {
            self.weights.push(weight.clone());
        }
        self.layers.entry(weight.id()).or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// `f()` with these in effect on this thread, and no others; none at all leave what is in effect.
    pub fn within<T>(self: &Arc<Self>, f: impl FnOnce() -> T) -> T {
        /// Puts back what was in effect before, also where `f` unwinds.
        struct Before(Option<Arc<Adapters>>);
        impl Drop for Before {
            fn drop(&mut self) {
                let before = self.0.take();
                ACTIVE.with_borrow_mut(|active| *active = before);
            }
        }
        if self.is_empty() {
            return f();
        }
        let _before = Before(ACTIVE.with_borrow_mut(|active| active.replace(self.clone())));
        f()
    }
}

/// `f` with what is in effect now, whenever and on whichever thread it is called: for what the backward pass computes again.
pub(crate) fn kept<T>(f: impl Fn() -> T) -> impl Fn() -> T {
    let set = ACTIVE.with_borrow(Clone::clone).unwrap_or_default();
    move || set.within(&f)
}

/// Of what is in effect on this thread: what texts are read with is the same where this is.
pub fn text_identity() -> u64 {
    ACTIVE.with_borrow(|active| active.as_ref().map_or(0, |set| set.text_identity))
}

/// Whether any are in effect.
pub(crate) fn are_active() -> bool {
    ACTIVE.with_borrow(Option::is_some)
}

/// What holds for the layer with this weight.
pub(crate) fn of(weight: &Param) -> Option<Adapter> {
    ACTIVE.with_borrow(|active| active.as_ref()?.layers.get(&weight.id()).cloned())
}

/// The number of a weight's value together with what is in effect; `None` where that is trained, and changes.
pub(crate) fn version(weight: &Param) -> Option<u64> {
    let own = weight.version();
    ACTIVE.with_borrow(|active| {
        let Some(set) = active else { return Some(own) };
        let Some(adapter) = set.layers.get(&weight.id()) else {
            return Some(own);
        };
        let mut hasher = DefaultHasher::new();
        (own, set.identity).hash(&mut hasher);
        for factor in adapter.terms.iter().flat_map(|term| term.factors.iter()) {
            if factor.is_trainable() {
                return None;
            }
            factor.version().hash(&mut hasher);
        }
        Some(hasher.finish())
    })
}

impl Adapter {
    /// `residual` and all that is to be added to a linear layer's result for `x`.
    pub(crate) fn linear(&self, x: &Tensor, residual: Option<&Tensor>) -> Option<Tensor> {
        self.terms.iter().fold(residual.cloned(), |sum, term| {
            Some(added_linear(x, &term.factors, term.scale, sum.as_ref()))
        })
    }

    /// The same of a convolution, with its `kernel` and geometry. `doubled`: of the picture with each pixel repeated.
    pub(crate) fn conv(
        &self,
        x: &Tensor,
        kernel: [usize; 2],
        geometry: Conv2d,
        doubled: bool,
        residual: Option<&Tensor>,
    ) -> Option<Tensor> {
        self.terms.iter().fold(residual.cloned(), |sum, term| {
            let factors = &term.factors;
            // The one with the layer's kernel goes where it was trained: first, or between two 1x1.
            let whole = factors.iter().position(|factor| factor.shape()[2..] == kernel);
            Some(added_conv(
                x,
                factors,
                whole.unwrap_or(0),
                geometry,
                doubled,
                term.scale,
                sum.as_ref(),
            ))
        })
    }
}

/// `x` times `scale`, unless that is 1.
fn scaled(x: &Tensor, scale: f32) -> Tensor {
    if scale == 1.0 { x.clone() } else { affine(x, scale, 0.0) }
}

/// `residual + scale · F_n … F_1 x` for matrices `[outputs, inputs]`.
fn added_linear(x: &Tensor, factors: &[Param], scale: f32, residual: Option<&Tensor>) -> Tensor {
    let product =
        |x: &Tensor, factor: &Param, residual| prima_tensor::linear(x, factor, None, Activation::None, residual);
    let Some((last, before)) = factors.split_last() else {
        return residual.map_or_else(|| affine(x, 0.0, 0.0), Tensor::clone);
    };
    // The narrowest is scaled, which is what the last one reads.
    let hidden = before.iter().fold(x.clone(), |x, factor| product(&x, factor, None));
    product(&scaled(&hidden, scale), last, residual)
}

/// The same of convolutions, of which number `whole` has the layer's geometry and the others are 1x1.
fn added_conv(
    x: &Tensor,
    factors: &[Param],
    whole: usize,
    geometry: Conv2d,
    doubled: bool,
    scale: f32,
    residual: Option<&Tensor>,
) -> Tensor {
    let last = factors.len().saturating_sub(1);
    let mut x = x.clone();
    for (i, factor) in factors.iter().enumerate() {
        if i == last {
            x = scaled(&x, scale);
        }
        let residual = residual.filter(|_| i == last);
        x = if i == whole && doubled {
            let out = prima_tensor::upsample_conv2d(&x, factor, None);
            residual.map_or(out.clone(), |residual| add(&out, residual))
        } else {
            let geometry = if i == whole { geometry } else { Conv2d::padded(0) };
            prima_tensor::conv2d(&x, factor, None, geometry, Activation::None, residual)
        };
    }
    x
}
