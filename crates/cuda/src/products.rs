//! Linear layers and convolutions: by cuBLASLt and cuDNN where they are, else by gemm.cu and conv.cu.

use crate::backend::{Direction, Product, Then};
use crate::gpu::{Arg, CudaGpu, THREADS, args};
use crate::memory::{Array, tensor};
use prima_tensor::device::fail;
use prima_tensor::gpu::{DeviceArray, Form, Products};
use prima_tensor::ops::ConvolutionSizes;
use prima_tensor::{Activation, DType, Param, Tensor};
use std::sync::Arc;

/// Side of a tile of gemm.cuh.
const TILE: usize = 64;

/// Blocks of a product of `m` rows and `n` columns.
fn tiles(m: usize, n: usize) -> [usize; 3] {
    [m.div_ceil(TILE), n.div_ceil(TILE), 1]
}

/// The sizes as every kernel of conv.cu takes them.
fn size_args(s: &ConvolutionSizes) -> [Arg; 12] {
    [
        s.batch,
        s.height,
        s.width,
        s.inputs,
        s.outputs,
        s.kh,
        s.kw,
        s.out_height,
        s.out_width,
        s.stride,
        s.padding[0],
        s.padding[2],
    ]
    .map(Arg::from)
}

fn window(s: &ConvolutionSizes) -> usize {
    s.kh * s.kw * s.inputs
}

/// Each pixel once: a linear layer.
fn is_pointwise(s: &ConvolutionSizes) -> bool {
    s.kh * s.kw == 1 && s.stride == 1 && s.padding == [0; 4]
}

/// What follows a product.
struct Epilogue {
    bias: Option<Arc<Array>>,
    act: Activation,
    residual: Option<Arc<Array>>,
}

impl CudaGpu {
    fn prepare(&self, bias: Option<&Param>, act: Activation, residual: Option<&Tensor>) -> Epilogue {
        Epilogue {
            bias: bias.map(|bias| self.param(bias, Form::Wide)),
            act,
            residual: residual.map(|residual| self.stored(residual)),
        }
    }

    /// The epilogue after a library's product, in place.
    fn finish(&self, y: &Array, epilogue: &Epilogue, width: usize) {
        let Epilogue { bias, act, residual } = epilogue;
        if bias.is_some() || *act != Activation::None || residual.is_some() {
            let n = y.len();
            let args = args![y, bias.as_ref(), number_of(*act), residual.as_ref(), n, width];
            self.each("elementwise", "epilogue", y.dtype(), n, args);
        }
    }

    /// A product by the library; false if our own kernel has to.
    fn library_product(&self, direction: Direction, [m, n, k]: [usize; 3], a: &Array, b: &Array, out: &Array) -> bool {
        self.library_product_then(direction, [m, n, k], a, b, out, Then::default(), [None, None])
    }

    fn library_product_then(
        &self,
        direction: Direction,
        [m, n, k]: [usize; 3],
        a: &Array,
        b: &Array,
        out: &Array,
        then: Then,
        extra: [Option<&Arc<Array>>; 2],
    ) -> bool {
        if m == 0 || n == 0 || k == 0 {
            return false;
        }
        let product = Product {
            direction,
            m,
            n,
            k,
            dtype: self.dtype(),
            tf32: self.tf32(),
            then,
        };
        let extra = extra.map(|array| array.map_or(0, |array| array.address()));
        // SAFETY: the callers below made the arrays with the sizes of the product, bias and residual of its type.
        unsafe {
            self.backend()
                .product(&product, a.address(), b.address(), out.address(), extra)
        }
        .unwrap_or_else(|error| fail(error))
    }

    /// The same by the library, which adds bias and residual itself where it can; false if our own kernel has to.
    fn library_linear(
        &self,
        sizes: [usize; 3],
        [x, weight]: [&Arc<Array>; 2],
        bias: Option<&Param>,
        act: Activation,
        residual: Option<&Tensor>,
        out: &Array,
    ) -> bool {
        let relu = act == Activation::Relu;
        // The library adds before it activates, the op adds the residual after.
        if act == Activation::None || (relu && residual.is_none()) {
            let then = Then {
                bias: bias.is_some(),
                relu,
                residual: residual.is_some(),
            };
            let form = if self.dtype() == DType::F32 {
                Form::Wide
            } else {
                Form::Stored
            };
            let bias = bias.map(|bias| self.param(bias, form));
            let residual = residual.map(|residual| self.stored(residual));
            let extra = [bias.as_ref(), residual.as_ref()];
            return self.library_product_then(Direction::Forward, sizes, x, weight, out, then, extra);
        }
        let done = self.library_product(Direction::Forward, sizes, x, weight, out);
        if done {
            self.finish(out, &self.prepare(bias, act, residual), sizes[1]);
        }
        done
    }

    /// A convolution by the library; false if our own kernel has to.
    fn library_convolution(
        &self,
        direction: Direction,
        s: &ConvolutionSizes,
        a: &Array,
        b: &Array,
        out: &Array,
    ) -> bool {
        if s.out_pixels() * s.outputs == 0 {
            return false;
        }
        let mut scratch = None;
        let mut workspace = |bytes: usize| {
            let array = self.empty(bytes.div_ceil(4), DType::F32);
            let address = array.address();
            scratch = Some(array);
            address
        };
        let (a, b, out) = (a.address(), b.address(), out.address());
        // SAFETY: the callers below made the arrays with the sizes of the convolution; the workspace lives until after the call.
        let done = unsafe {
            self.backend()
                .convolution(direction, s, self.dtype(), self.tf32(), a, b, out, &mut workspace)
        };
        done.unwrap_or_else(|error| fail(error))
    }
}

/// The number of an activation that follows a product at once, or the values of a convolution.
fn number_of(act: Activation) -> usize {
    assert!(act != Activation::Softplus, "softplus is an op of its own, no epilogue");
    act as usize
}

impl Products for CudaGpu {
    fn linear(
        &self,
        x: &Tensor,
        weight: &Param,
        bias: Option<&Param>,
        act: Activation,
        residual: Option<&Tensor>,
        out_shape: &[usize],
    ) -> Tensor {
        let (n, k) = (out_shape[out_shape.len() - 1], x.dim(-1));
        let (m, dtype) = (x.numel() / k, self.dtype());
        let (x, weight) = (self.stored(x), self.param(weight, Form::Stored));
        let out = self.empty(m * n, dtype);
        if self.library_linear([m, n, k], [&x, &weight], bias, act, residual, &out) {
            return tensor(out, out_shape);
        }
        let Epilogue { bias, act, residual } = self.prepare(bias, act, residual);
        let args = args![
            &x,
            &weight,
            &out,
            bias.as_ref(),
            number_of(act),
            residual.as_ref(),
            m,
            n,
            k
        ];
        self.launch("gemm", "linear_forward", dtype, tiles(m, n), THREADS, args);
        tensor(out, out_shape)
    }

    fn linear_grad_input(&self, grad: &Tensor, weight: &Param, x_shape: &[usize]) -> Tensor {
        let (n, k) = (grad.dim(-1), x_shape[x_shape.len() - 1]);
        let (m, dtype) = (grad.numel() / n, self.dtype());
        let (grad, weight) = (self.stored(grad), self.param(weight, Form::Stored));
        let dx = self.empty(m * k, dtype);
        if !self.library_product(Direction::GradInput, [m, n, k], &grad, &weight, &dx) {
            let args = args![&grad, &weight, &dx, m, n, k];
            self.launch("gemm", "linear_grad_input", dtype, tiles(m, k), THREADS, args);
        }
        tensor(dx, x_shape)
    }

    fn linear_grad_weight(&self, grad: &Tensor, x: &Tensor, weight_shape: &[usize]) -> Tensor {
        let (n, k, dtype) = (grad.dim(-1), x.dim(-1), self.dtype());
        let m = x.numel() / k;
        let (grad, x) = (self.stored(grad), self.stored(x));
        let dw = self.empty(n * k, DType::F32);
        if !self.library_product(Direction::GradWeight, [m, n, k], &grad, &x, &dw) {
            let args = args![&grad, &x, &dw, m, n, k];
            self.launch("gemm", "linear_grad_weight", dtype, tiles(n, k), THREADS, args);
        }
        tensor(dw, weight_shape)
    }

    fn conv2d(
        &self,
        s: &ConvolutionSizes,
        x: &Tensor,
        weight: &Param,
        bias: Option<&Param>,
        act: Activation,
        residual: Option<&Tensor>,
    ) -> Tensor {
        let shape = [s.batch, s.out_height, s.out_width, s.outputs];
        if is_pointwise(s) {
            return self.linear(x, weight, bias, act, residual, &shape);
        }
        let (m, dtype) = (s.out_pixels(), self.dtype());
        let (x, weight) = (self.stored(x), self.param(weight, Form::ChannelsLast));
        let epilogue = self.prepare(bias, act, residual);
        let out = self.empty(m * s.outputs, dtype);
        if self.library_convolution(Direction::Forward, s, &x, &weight, &out) {
            self.finish(&out, &epilogue, s.outputs);
        } else {
            let Epilogue { bias, act, residual } = &epilogue;
            let mut args = args![&x, &weight, &out, bias.as_ref(), number_of(*act), residual.as_ref()].to_vec();
            args.extend(size_args(s));
            self.launch("conv", "conv_forward", dtype, tiles(m, s.outputs), THREADS, &args);
        }
        tensor(out, &shape)
    }

    fn conv2d_grad_input(&self, s: &ConvolutionSizes, grad: &Tensor, weight: &Param) -> Tensor {
        let shape = [s.batch, s.height, s.width, s.inputs];
        if is_pointwise(s) {
            return self.linear_grad_input(grad, weight, &shape);
        }
        let (grad, weight) = (self.stored(grad), self.param(weight, Form::ChannelsLast));
        let m = s.batch * s.height * s.width;
        let dx = self.empty(m * s.inputs, self.dtype());
        if !self.library_convolution(Direction::GradInput, s, &grad, &weight, &dx) {
            let mut args = args![&grad, &weight, &dx].to_vec();
            args.extend(size_args(s));
            let grid = tiles(m, s.inputs);
            self.launch("conv", "conv_grad_input", self.dtype(), grid, THREADS, &args);
        }
        tensor(dx, &shape)
    }

    fn conv2d_grad_weight(&self, s: &ConvolutionSizes, grad: &Tensor, x: &Tensor) -> Tensor {
        let shape = [s.outputs, s.inputs, s.kh, s.kw];
        if is_pointwise(s) {
            return self.linear_grad_weight(grad, x, &shape);
        }
        let (grad, x) = (self.stored(grad), self.stored(x));
        let len = s.outputs * window(s);
        let narrow = Arc::new(self.empty(len, self.dtype()));
        let channels_last = if self.library_convolution(Direction::GradWeight, s, &grad, &x, &narrow) {
            self.cast(&narrow, DType::F32)
        } else {
            let dw = self.empty(len, DType::F32);
            let mut args = args![&grad, &x, &dw].to_vec();
            args.extend(size_args(s));
            let grid = tiles(s.outputs, window(s));
            self.launch("conv", "conv_grad_weight", self.dtype(), grid, THREADS, &args);
            Arc::new(dw)
        };
        let dw = self.transpose(&channels_last, s.outputs, s.kh * s.kw, s.inputs);
        tensor(dw, &shape)
    }

    fn depthwise(
        &self,
        s: &ConvolutionSizes,
        x: &Tensor,
        weight: &Param,
        bias: Option<&Param>,
        act: Activation,
    ) -> Tensor {
        let n = s.out_pixels() * s.outputs;
        let (x, weight) = (self.stored(x), self.param(weight, Form::Wide));
        let bias = bias.map(|bias| self.param(bias, Form::Wide));
        let out = self.empty(n, self.dtype());
        let mut args = args![&x, &weight, bias.as_ref(), number_of(act), &out, n].to_vec();
        args.extend(size_args(s));
        self.each("conv", "depthwise", self.dtype(), n, &args);
        tensor(out, &[s.batch, s.out_height, s.out_width, s.outputs])
    }

    fn depthwise_grad_input(&self, s: &ConvolutionSizes, grad: &Tensor, weight: &Param) -> Tensor {
        let shape = [s.batch, s.height, s.width, s.inputs];
        let n: usize = shape.iter().product();
        let (grad, weight) = (self.stored(grad), self.param(weight, Form::Wide));
        let dx = self.empty(n, self.dtype());
        let mut args = args![&grad, &weight, &dx, n].to_vec();
        args.extend(size_args(s));
        self.each("conv", "depthwise_grad_input", self.dtype(), n, &args);
        tensor(dx, &shape)
    }
}
