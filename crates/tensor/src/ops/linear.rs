use crate::autograd::{is_recording, record};
use crate::cpu::tile::Epilogue;
use crate::cpu::{linear as kernel, sums};
use crate::device::gpu;
use crate::{Activation, DType, Param, Tensor, activation, add};

/// `act(x · weightᵀ + bias) + residual`. `x` is `[..., in]`, `weight` `[out, in]`, `bias` `[out]`,
/// `residual` `[..., out]`.
pub fn linear(x: &Tensor, weight: &Param, bias: Option<&Param>, act: Activation, residual: Option<&Tensor>) -> Tensor {
    let w = weight.on_tape();
    let b = bias.map(Param::tensor);
    let mut inputs = vec![x, &w];
    inputs.extend(&b);
    if !is_recording(&inputs) && !residual.is_some_and(|r| is_recording(&[r])) {
        return forward(x, weight, bias, b.as_ref(), act, residual);
    }
    let (x_saved, weight_saved) = (x.detach(), weight.clone());
    let wants = [x.node.is_some(), w.node.is_some()];
    let has_bias = b.is_some();
    // Added at once where nothing comes between, which rounds the same.
    let (added, residual) = residual.map_or((None, None), |r| {
        let at_once = act == Activation::None && gpu().is_none();
        if at_once { (Some(r), None) } else { (None, Some(r)) }
    });
    let out = forward(x, weight, bias, b.as_ref(), Activation::None, added);
    inputs.extend(added);
    let adds = added.is_some();
    let out = record(out, &inputs, move |g| {
        let dx = wants[0].then(|| grad_input(g, &weight_saved, x_saved.shape()));
        let [dw, db] = grad_weight(g, &x_saved, &weight_saved, [wants[1], has_bias]);
        let mut gradients = vec![dx, dw];
        gradients.extend(has_bias.then_some(db));
        gradients.extend(adds.then(|| Some(g.clone())));
        gradients
    });
    let out = activation(&out, act);
    residual.map_or(out.clone(), |r| add(&out, r))
}

/// `bias` is the value of `bias_param`.
fn forward(
    x: &Tensor,
    weight: &Param,
    bias_param: Option<&Param>,
    bias: Option<&Tensor>,
    act: Activation,
    residual: Option<&Tensor>,
) -> Tensor {
    let shape = weight.shape();
    let (n, k) = (shape[0], shape[1]);
    assert_eq!(x.dim(-1), k, "linear: x {:?} does not fit weight {shape:?}", x.shape());
    let mut out_shape = x.shape().to_vec();
    out_shape[x.shape().len() - 1] = n;
    assert!(
        residual.is_none_or(|r| r.shape() == out_shape),
        "linear: residual shape"
    );
    if let Some(gpu) = gpu() {
        return gpu.linear(x, weight, bias_param, act, residual, &out_shape);
    }
    if let Some(trial) = weight.trial() {
        let product = |w: &Param| kernel::forward(x.data(), w, [n, k], &Epilogue::NONE);
        trial.compare(weight, |w| Tensor::from_vec(product(w), &out_shape));
    }
    let epilogue = Epilogue {
        bias: bias.map(Tensor::data),
        act,
        residual: residual.map(Tensor::data),
    };
    let out = kernel::forward(x.data(), weight, [n, k], &epilogue);
    Tensor::from_vec(out, &out_shape)
}

/// `g · weight`.
pub(super) fn grad_input(g: &Tensor, weight: &Param, x_shape: &[usize]) -> Tensor {
    if let Some(gpu) = gpu() {
        return gpu.linear_grad_input(g, weight, x_shape);
    }
    let shape = weight.shape();
    Tensor::from_vec(kernel::grad_input(g.data(), weight, [shape[0], shape[1]]), x_shape)
}

/// Of the weight and of the bias, as they are wanted.
fn grad_weight(g: &Tensor, x: &Tensor, weight: &Param, wants: [bool; 2]) -> [Option<Tensor>; 2] {
    if let Some(gpu) = gpu() {
        let dw = wants[0].then(|| gpu.linear_grad_weight(g, x, &weight.shape()));
        return [dw, wants[1].then(|| sum_rows(g))];
    }
    if !wants[0] {
        return [None, wants[1].then(|| sum_rows(g))];
    }
    let sizes = [g.dim(-1), x.dim(-1)];
    let (dw, db) = kernel::grad_weight(g.data(), x.data(), sizes, weight.products_dtype());
    [
        Some(Tensor::from_vec(dw, &sizes)),
        wants[1].then(|| Tensor::from_vec(db, &sizes[..1])),
    ]
}

/// `aᵀ · b` of matrices with the same rows, whose factors are rounded to `dtype` on a CPU.
pub(super) fn transposed_product(a: &Tensor, b: &Tensor, dtype: DType) -> Tensor {
    let sizes = [a.dim(-1), b.dim(-1)];
    match gpu() {
        Some(gpu) => gpu.linear_grad_weight(a, b, &sizes),
        None => Tensor::from_vec(kernel::grad_weight(a.data(), b.data(), sizes, dtype).0, &sizes),
    }
}

/// Sum over all axes but the last: a bias' gradient.
pub(crate) fn sum_rows(g: &Tensor) -> Tensor {
    if let Some(gpu) = gpu() {
        return gpu.sum_rows(g);
    }
    let n = g.dim(-1);
    Tensor::from_vec(sums::of_rows(g.data(), n), &[n])
}
