use crate::autograd::{is_recording, record, record_owning};
use crate::cpu::norm::{self as kernel, Geometry, NormGradients};
use crate::device::gpu;
use crate::ops::elementwise::on_tape;
use crate::{Param, Tensor};

fn assert_channels(op: &str, x: &Tensor, gamma: &Tensor, beta: &Tensor) {
    assert!(x.numel() > 0, "{op} of no values");
    assert_eq!(
        gamma.shape(),
        [x.dim(-1)],
        "{op}: gamma does not fit x of shape {:?}",
        x.shape()
    );
    assert_eq!(
        beta.shape(),
        [x.dim(-1)],
        "{op}: beta does not fit x of shape {:?}",
        x.shape()
    );
}

fn gradients(d: NormGradients, shape: &[usize], needs: [bool; 2]) -> Vec<Option<Tensor>> {
    let channels = [d.gamma.len()];
    vec![
        d.dx.map(|dx| Tensor::from_vec(dx, shape)),
        needs[0].then(|| Tensor::from_vec(d.gamma, &channels)),
        needs[1].then(|| Tensor::from_vec(d.beta, &channels)),
    ]
}

/// [`group_norm`] of what is not needed any more: in its place, if nobody else has it and it is off the tape.
pub fn group_norm_within(mut x: Tensor, gamma: &Param, beta: &Param, groups: usize, eps: f32, silu: bool) -> Tensor {
    let params = [gamma.tensor(), beta.tensor()];
    let [gamma_values, beta_values] = &params;
    let is_on_tape = is_recording(&[&x, gamma_values, beta_values]);
    if is_on_tape || gpu().is_some() || x.own_data().is_none() {
        return group_norm(&x, gamma, beta, groups, eps, silu);
    }
    let g = geometry(&x, gamma_values, beta_values, groups);
    let statistics = kernel::group_statistics(x.data(), g, eps);
    if let Some(values) = x.own_data() {
        kernel::group_norm_within(values, &statistics, g, gamma_values.data(), beta_values.data(), silu);
    }
    x
}

fn geometry(x: &Tensor, gamma: &Tensor, beta: &Tensor, groups: usize) -> Geometry {
    assert_channels("group_norm", x, gamma, beta);
    let (batch, channels) = (x.dim(0), x.dim(-1));
    assert!(
        groups > 0 && channels.is_multiple_of(groups),
        "{channels} channels do not split into {groups} groups"
    );
    Geometry {
        batch,
        rows: x.numel() / batch / channels,
        channels,
        groups,
    }
}

/// GroupNorm over `[B, ..., C]` with `groups` groups of channels, then SiLU if `silu`.
/// `gamma` and `beta` are `[C]`. Variance is the biased one. Gradients reach `x`, `gamma`, `beta`.
pub fn group_norm(x: &Tensor, gamma: &Param, beta: &Param, groups: usize, eps: f32, silu: bool) -> Tensor {
    let params = [gamma, beta];
    let (gamma, beta) = (gamma.tensor(), beta.tensor());
    let g = geometry(x, &gamma, &beta, groups);
    if let Some(gpu) = gpu() {
        let (out, statistics) = gpu.group_norm(x, params[0], params[1], groups, eps, silu);
        return record_on_gpu(Some((groups, silu)), out, statistics, x, params);
    }
    let statistics = kernel::group_statistics(x.data(), g, eps);
    let out = kernel::group_norm(x.data(), &statistics, g, gamma.data(), beta.data(), silu);
    let out = Tensor::from_vec(out, x.shape());
    if !is_recording(&[x, &gamma, &beta]) {
        return out;
    }
    let needs_x = on_tape(x);
    let needs = [on_tape(&gamma), on_tape(&beta)];
    let (saved, gamma_saved, beta_saved) = (x.detach(), gamma.detach(), beta.detach());
    record_owning(out, &[x, &gamma, &beta], move |grad| {
        let (gamma, beta) = (gamma_saved.data(), beta_saved.data());
        let d = kernel::group_norm_backward(
            saved.data(),
            grad.into_vec(),
            &statistics,
            g,
            gamma,
            beta,
            silu,
            needs_x,
        );
        gradients(d, saved.shape(), needs)
    })
}

/// LayerNorm over the last axis. `gamma` and `beta` are `[C]`; gradients reach `x`, `gamma`, `beta`.
pub fn layer_norm(x: &Tensor, gamma: &Param, beta: &Param, eps: f32) -> Tensor {
    let params = [gamma, beta];
    let (gamma, beta) = (gamma.tensor(), beta.tensor());
    assert_channels("layer_norm", x, &gamma, &beta);
    if let Some(gpu) = gpu() {
        let (out, statistics) = gpu.layer_norm(x, params[0], params[1], eps);
        return record_on_gpu(None, out, statistics, x, params);
    }
    let out = kernel::layer_norm(x.data(), gamma.data(), beta.data(), eps);
    let out = Tensor::from_vec(out, x.shape());
    if !is_recording(&[x, &gamma, &beta]) {
        return out;
    }
    let needs = [on_tape(&gamma), on_tape(&beta)];
    let (saved, gamma_saved) = (x.detach(), gamma.detach());
    record_owning(out, &[x, &gamma, &beta], move |grad| {
        gradients(
            kernel::layer_norm_backward(saved.data(), grad.into_vec(), gamma_saved.data(), eps),
            saved.shape(),
            needs,
        )
    })
}

/// The tape of both norms on a GPU; `grouped` is GroupNorm's number of groups and whether SiLU follows.
fn record_on_gpu(
    grouped: Option<(usize, bool)>,
    out: Tensor,
    statistics: Tensor,
    x: &Tensor,
    [gamma, beta]: [&Param; 2],
) -> Tensor {
    let (gamma_place, beta_place) = (gamma.on_tape(), beta.on_tape());
    let inputs = [x, &gamma_place, &beta_place];
    if !is_recording(&inputs) {
        return out;
    }
    let needs = inputs.map(on_tape);
    let (saved, gamma, beta) = (x.detach(), gamma.clone(), beta.clone());
    record(out, &inputs, move |grad| {
        let gpu = gpu().unwrap_or_else(|| panic!("a norm ran on a GPU, so must its backward pass"));
        let (dx, [d_gamma, d_beta]) = match grouped {
            Some((groups, silu)) => {
                gpu.group_norm_backward(&saved, grad, &statistics, &gamma, &beta, groups, silu, needs[0])
            }
            None => gpu.layer_norm_backward(&saved, grad, &statistics, &gamma),
        };
        vec![dx, needs[1].then_some(d_gamma), needs[2].then_some(d_beta)]
    })
}
