//! Launchers of elementwise.cu.

use crate::gpu::{CudaGpu, args};
use crate::memory::tensor;
use prima_tensor::gpu::{Form, Pointwise};
use prima_tensor::ops::Binary;
use prima_tensor::{Activation, DType, Param, Tensor};

impl Pointwise for CudaGpu {
    fn binary(&self, op: Binary, a: &Tensor, b: &Tensor) -> Tensor {
        let (n, dtype) = (a.numel(), self.common_dtype(&[a, b]));
        let (x, y, out) = (self.array(a, dtype), self.array(b, dtype), self.empty(n, dtype));
        self.each("elementwise", "binary", dtype, n, args![op as usize, &x, &y, &out, n]);
        tensor(out, a.shape())
    }

    fn affine(&self, x: &Tensor, scale: f32, shift: f32) -> Tensor {
        let (n, dtype) = (x.numel(), self.common_dtype(&[x]));
        let (from, out) = (self.array(x, dtype), self.empty(n, dtype));
        self.each("elementwise", "affine", dtype, n, args![&from, scale, shift, &out, n]);
        tensor(out, x.shape())
    }

    fn activation(&self, x: &Tensor, kind: Activation) -> Tensor {
        let n = x.numel();
        let (from, out) = (self.stored(x), self.empty(n, self.dtype()));
        let args = args![kind as usize, &from, &out, n];
        self.each("elementwise", "activation_forward", self.dtype(), n, args);
        tensor(out, x.shape())
    }

    fn activation_backward(&self, x: &Tensor, kind: Activation, grad: &Tensor) -> Tensor {
        let n = x.numel();
        let (from, grad, out) = (self.stored(x), self.stored(grad), self.empty(n, self.dtype()));
        let args = args![kind as usize, &from, &grad, &out, n];
        self.each("elementwise", "activation_backward", self.dtype(), n, args);
        tensor(out, x.shape())
    }

    fn geglu(&self, x: &Tensor, shape: &[usize]) -> Tensor {
        let n = x.numel() / 2;
        let (from, out) = (self.stored(x), self.empty(n, self.dtype()));
        let args = args![&from, &out, n, x.dim(-1) / 2];
        self.each("elementwise", "geglu_forward", self.dtype(), n, args);
        tensor(out, shape)
    }

    fn geglu_backward(&self, x: &Tensor, grad: &Tensor) -> Tensor {
        let n = x.numel() / 2;
        let (from, grad, dx) = (self.stored(x), self.stored(grad), self.empty(2 * n, self.dtype()));
        let args = args![&from, &grad, &dx, n, x.dim(-1) / 2];
        self.each("elementwise", "geglu_backward", self.dtype(), n, args);
        tensor(dx, x.shape())
    }

    fn combine_per_sample(&self, a: &[f32], x: &Tensor, other: Option<(&[f32], &Tensor)>) -> Tensor {
        let n = x.numel();
        let (from, out) = (self.stored(x), self.empty(n, self.dtype()));
        let factors = self.upload(a);
        let other = other.map(|(c, y)| (std::sync::Arc::new(self.upload(c)), self.stored(y)));
        let (c, y) = (other.as_ref().map(|o| &o.0), other.as_ref().map(|o| &o.1));
        let args = args![&factors, &from, c, y, &out, n, n / a.len().max(1)];
        self.each("elementwise", "combine_per_sample", self.dtype(), n, args);
        tensor(out, x.shape())
    }

    fn weighted_sum(&self, terms: &[(f32, &Tensor)]) -> Tensor {
        let n = terms[0].1.numel();
        let arrays: Vec<_> = terms.iter().map(|(_, t)| self.array(t, DType::F32)).collect();
        let out = self.empty(n, DType::F32);
        let weight = |i: usize| terms.get(i).map_or(0.0, |term| term.0);
        let args = args![
            arrays.first(),
            arrays.get(1),
            arrays.get(2),
            arrays.get(3),
            weight(0),
            weight(1),
            weight(2),
            weight(3),
            &out,
            n
        ];
        self.each("elementwise", "weighted_sum", DType::F32, n, args);
        tensor(out, terms[0].1.shape())
    }

    fn add_per_sample_channel(&self, x: &Tensor, v: &Tensor) -> Tensor {
        let n = x.numel();
        let (from, v, out) = (self.stored(x), self.stored(v), self.empty(n, self.dtype()));
        let args = args![&from, &v, &out, n, n / x.dim(0).max(1), x.dim(-1)];
        self.each("elementwise", "add_per_sample_channel", self.dtype(), n, args);
        tensor(out, x.shape())
    }

    fn broadcast_rows(&self, v: &Tensor, shape: &[usize], scale: f32) -> Tensor {
        let n: usize = shape.iter().product();
        let (from, out) = (self.stored(v), self.empty(n, self.dtype()));
        let args = args![&from, &out, n, n / v.dim(0).max(1), v.dim(-1), scale];
        self.each("elementwise", "broadcast_rows", self.dtype(), n, args);
        tensor(out, shape)
    }

    fn add_positions(&self, x: &Tensor, table: &Param) -> Tensor {
        let n = x.numel();
        let (from, out) = (self.stored(x), self.empty(n, self.dtype()));
        let table = self.param(table, Form::Wide);
        let args = args![&from, &table, &out, n, x.dim(1) * x.dim(2)];
        self.each("elementwise", "add_positions", self.dtype(), n, args);
        tensor(out, x.shape())
    }

    fn picture_bytes(&self, x: &Tensor) -> Vec<u8> {
        let n = x.numel();
        let from = self.array(x, self.common_dtype(&[x]));
        let out = self.empty(n.div_ceil(4), DType::F32);
        self.each("elementwise", "picture_bytes", from.dtype(), n, args![&from, &out, n]);
        let mut bytes = vec![0; n];
        out.read_bytes(&mut bytes);
        bytes
    }

    fn full(&self, value: f32, shape: &[usize]) -> Tensor {
        let n = shape.iter().product();
        let out = self.empty(n, DType::F32);
        self.each("elementwise", "fill", DType::F32, n, args![&out, value, n]);
        tensor(out, shape)
    }
}
