//! A matrix whose singular values are all alike, from products alone: what Muon moves a weight by.

use super::linear::{grad_input, linear, transposed_product};
use crate::{Activation, DType, Device, Param, Tensor, global_norm, weighted_sum};

/// The quintic of the Newton-Schulz iteration, as steep at 0 as it can be (Jordan et al. 2024): `x (a + b x² + c x⁴)`.
const QUINTIC: (f64, f64, f64) = (3.4445, -4.775, 2.0315);

/// After so many steps no singular value that matters is small any more, and products may round their factors to bf16.
const STEPS_IN_F32: usize = 2;

/// `U Vᵀ` of `x = U S Vᵀ`, `[rows, columns]`, but for singular values that end between 0.7 and 1.2 after five steps of Newton and
/// Schulz, as `torch.optim.Muon` takes them. The factors of the products are rounded to `dtype` on a CPU, where small
/// singular values allow it.
///
/// A step takes `x` to `x q` with `q = a + b g + c g²` of its Gram matrix `g`, and so `g` to `q g q`: all steps can be taken
/// where the matrices are smallest. That squares what small singular values are known to, which the first steps bear in f32; a
/// device whose products are in bf16 goes through `x`.
pub fn orthogonalize(x: &Tensor, steps: usize, dtype: DType) -> Tensor {
    let norm = f64::from(global_norm(&[x]).max(1e-7));
    let mut x = Matrix::new(weighted_sum(&[(1.0 / norm, x)]), dtype);
    let identity = identity(x.smaller_side());
    if Device::current().dtype() == DType::F32 {
        return match polynomial(&identity, x.gram(), steps, dtype) {
            Some(product) => x.times(&product),
            None => x.value,
        };
    }
    for _ in 0..steps {
        x = Matrix::new(x.times(&factor_of_step(&identity, &x.gram(), DType::F32)), dtype);
    }
    x.value
}

struct Matrix {
    value: Tensor,
    /// The same as a right factor, of a wide one.
    right: Option<Param>,
    dtype: DType,
}

impl Matrix {
    fn new(value: Tensor, dtype: DType) -> Self {
        let &[rows, columns] = value.shape() else {
            panic!("orthogonalize wants [rows, columns], shape is {:?}", value.shape())
        };
        let right = (rows < columns).then(|| factor(&value, dtype));
        Self { value, right, dtype }
    }

    fn smaller_side(&self) -> usize {
        self.value.dim(0).min(self.value.dim(1))
    }

    /// The smaller one of `x xᵀ` and `xᵀ x`.
    fn gram(&self) -> Tensor {
        match &self.right {
            Some(right) => times(&self.value, right),
            None => transposed_product(&self.value, &self.value, self.dtype),
        }
    }

    /// With a symmetric matrix of the Gram matrix's size, from its side.
    fn times(&self, symmetric: &Tensor) -> Tensor {
        match &self.right {
            Some(right) => grad_input(symmetric, right, self.value.shape()),
            None => times(&self.value, &factor(symmetric, self.dtype)),
        }
    }
}

/// The product of all steps' factors, from the Gram matrix `g`. They all commute.
fn polynomial(identity: &Tensor, mut g: Tensor, steps: usize, dtype: DType) -> Option<Tensor> {
    let mut product: Option<Tensor> = None;
    for step in 0..steps {
        let dtype = if step < STEPS_IN_F32 { DType::F32 } else { dtype };
        let value = factor_of_step(identity, &g, dtype);
        let q = factor(&value, dtype);
        if step + 1 < steps {
            g = times(&times(&g, &q), &q);
        }
        product = Some(product.map_or(value, |product| times(&product, &q)));
    }
    product
}

/// `a + b g + c g²`.
fn factor_of_step(identity: &Tensor, g: &Tensor, dtype: DType) -> Tensor {
    let (a, b, c) = QUINTIC;
    let squared = times(g, &factor(g, dtype));
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

/// The right factor of a product.
fn factor(x: &Tensor, dtype: DType) -> Param {
    let param = Param::new(x.clone());
    param.set_bf16_products(dtype == DType::BF16);
    param
}
