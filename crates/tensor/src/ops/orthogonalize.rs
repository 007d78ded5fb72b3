//! A matrix whose singular values are all alike, from products alone: what Muon moves a weight by.

use super::linear::{grad_input, linear, transposed_product};
use crate::cpu::orthogonal;
use crate::device::gpu;
use crate::{Activation, DType, Param, Tensor, global_norm, weighted_sum};

/// The quintic of the Newton-Schulz iteration, as steep at 0 as it can be (Jordan et al. 2024): `x (a + b x² + c x⁴)`.
pub(crate) const QUINTIC: [f64; 3] = [3.4445, -4.775, 2.0315];

/// `U Vᵀ` of `x = U S Vᵀ`, `[rows, columns]`, but for singular values that end between 0.7 and 1.2 after five steps of Newton and
/// Schulz, as `torch.optim.Muon` takes them. On a CPU the factors of the products are rounded to `dtype`, where small singular
/// values allow it.
///
/// A step takes `x` to `x q` with `q = a + b g + c g²` of its Gram matrix `g`, and so `g` to `q g q`: on a CPU all steps are taken
/// where the matrices are smallest. That squares what small singular values are known to, which the first steps bear in f32; a
/// device, whose products may be in bf16, goes through `x`.
pub fn orthogonalize(x: &Tensor, steps: usize, dtype: DType) -> Tensor {
    let &[rows, columns] = x.shape() else {
        panic!("orthogonalize wants [rows, columns], shape is {:?}", x.shape())
    };
    if gpu().is_none() {
        let values = orthogonal::orthogonalize(x.data(), [rows, columns], steps, dtype);
        return Tensor::from_vec(values, x.shape());
    }
    let norm = f64::from(global_norm(&[x]).max(1e-7));
    let identity = identity(rows.min(columns));
    let mut x = weighted_sum(&[(1.0 / norm, x)]);
    for _ in 0..steps {
        x = if rows < columns {
            let right = Param::new(x.clone());
            grad_input(&factor_of_step(&identity, &times(&x, &right)), &right, x.shape())
        } else {
            let gram = transposed_product(&x, &x, dtype);
            times(&x, &Param::new(factor_of_step(&identity, &gram)))
        };
    }
    x
}

/// `a + b g + c g²`.
fn factor_of_step(identity: &Tensor, g: &Tensor) -> Tensor {
    let [a, b, c] = QUINTIC;
    let squared = times(g, &Param::new(g.clone()));
    weighted_sum(&[(a, identity), (b, g), (c, &squared)])
}

/// `x · yᵀ`.
fn times(x: &Tensor, y: &Param) -> Tensor {
    linear(x, y, None, Activation::None, None)
}

fn identity(n: usize) -> Tensor {
    let mut values = vec![0.0; n * n];
    values.iter_mut().step_by(n + 1).for_each(|value| *value = 1.0);
    Tensor::from_vec(values, &[n, n])
}
