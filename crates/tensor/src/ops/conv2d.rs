use crate::autograd::{is_recording, record};
use crate::cpu::conv2d;
use crate::device::gpu;
use crate::ops::linear::sum_rows;
use crate::{Activation, Param, Tensor, activation, add, upsample_nearest_2x};

/// Geometry of a convolution. `padding` is `[top, bottom, left, right]` zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2d {
    pub stride: usize,
    pub padding: [usize; 4],
}

impl Conv2d {
    /// Stride 1, the same padding `p` on each side.
    pub fn padded(p: usize) -> Self {
        Self {
            stride: 1,
            padding: [p; 4],
        }
    }

    pub fn strided(stride: usize, p: usize) -> Self {
        Self {
            stride,
            padding: [p; 4],
        }
    }
}

/// All sizes of one convolution: `x [batch, height, width, inputs]`, weight `[outputs, inputs, kh, kw]`, the result
/// `[batch, out_height, out_width, outputs]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvolutionSizes {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub kh: usize,
    pub kw: usize,
    pub out_height: usize,
    pub out_width: usize,
    pub stride: usize,
    /// Top, bottom, left, right.
    pub padding: [usize; 4],
}

impl ConvolutionSizes {
    /// Of `op` on `x` by a weight that reads all inputs of a pixel.
    fn new(op: &str, x: &[usize], weight: &[usize], geometry: Conv2d) -> Self {
        let ([batch, height, width, inputs], [outputs, weight_inputs, kh, kw]) = (x, weight) else {
            panic!("{op} wants x [B,H,W,C] and weight [O,I,kh,kw], got {x:?} and {weight:?}");
        };
        assert_eq!(inputs, weight_inputs, "{op}: x {x:?} does not fit weight {weight:?}");
        let [top, bottom, left, right] = geometry.padding;
        let fits = |size: usize, before: usize, after: usize, kernel: usize| {
            assert!(
                size + before + after >= kernel,
                "{op}: kernel {kernel} is larger than the padded picture {x:?}"
            );
            (size + before + after - kernel) / geometry.stride + 1
        };
        Self {
            batch: *batch,
            height: *height,
            width: *width,
            inputs: *inputs,
            outputs: *outputs,
            kh: *kh,
            kw: *kw,
            out_height: fits(*height, top, bottom, *kh),
            out_width: fits(*width, left, right, *kw),
            stride: geometry.stride,
            padding: geometry.padding,
        }
    }

    /// Of `op` on `x` by a weight `[C, 1, kh, kw]` with one filter a channel.
    pub(crate) fn depthwise(op: &str, x: &[usize], weight: &[usize], geometry: Conv2d) -> Self {
        let &[channels, 1, kh, kw] = weight else {
            panic!("{op} wants weight [C, 1, kh, kw], shape is {weight:?}");
        };
        Self::new(op, x, &[channels, channels, kh, kw], geometry)
    }

    pub fn out_shape(&self) -> [usize; 4] {
        [self.batch, self.out_height, self.out_width, self.outputs]
    }

    pub fn out_pixels(&self) -> usize {
        self.batch * self.out_height * self.out_width
    }

    pub(crate) fn top(&self) -> usize {
        self.padding[0]
    }

    pub(crate) fn left(&self) -> usize {
        self.padding[2]
    }
}

/// `act(conv(x, weight) + bias) + residual`. `x` is `[B, H, W, in]`, `weight` `[out, in, kh, kw]`,
/// the result `[B, H', W', out]`.
pub fn conv2d(
    x: &Tensor,
    weight: &Param,
    bias: Option<&Param>,
    geometry: Conv2d,
    act: Activation,
    residual: Option<&Tensor>,
) -> Tensor {
    let s = ConvolutionSizes::new("conv2d", x.shape(), &weight.shape(), geometry);
    let w = weight.on_tape();
    let b = bias.map(Param::tensor);
    let mut inputs = vec![x, &w];
    inputs.extend(&b);
    if let Some(trial) = weight.trial().filter(|_| gpu().is_none()) {
        trial.compare(weight, |w| conv2d::forward(&s, x, w, None, Activation::None, None));
    }
    let run = |act: Activation, residual: Option<&Tensor>| match gpu() {
        Some(gpu) => gpu.conv2d(&s, x, weight, bias, act, residual),
        None => conv2d::forward(&s, x, weight, b.as_ref(), act, residual),
    };
    if !is_recording(&inputs) && !residual.is_some_and(|r| is_recording(&[r])) {
        return run(act, residual);
    }
    let (x_saved, weight_saved) = (x.detach(), weight.clone());
    let wants = [x.node.is_some(), w.node.is_some()];
    let has_bias = b.is_some();
    // Added at once where nothing comes between, which rounds the same.
    let (added, residual) = residual.map_or((None, None), |r| {
        let at_once = act == Activation::None && gpu().is_none();
        if at_once { (Some(r), None) } else { (None, Some(r)) }
    });
    inputs.extend(added);
    let adds = added.is_some();
    let out = record(run(Activation::None, added), &inputs, move |g| {
        let mut gradients = if let Some(gpu) = gpu() {
            vec![
                wants[0].then(|| gpu.conv2d_grad_input(&s, g, &weight_saved)),
                wants[1].then(|| gpu.conv2d_grad_weight(&s, g, &x_saved)),
                has_bias.then(|| sum_rows(g)),
            ]
        } else {
            let dx = wants[0].then(|| conv2d::grad_input(&s, g, &weight_saved));
            let dtype = weight_saved.products_dtype();
            let [dw, db] = conv2d::grad_weight(&s, g, &x_saved, dtype, [wants[1], has_bias]);
            vec![dx, dw, db]
        };
        gradients.truncate(2 + usize::from(has_bias));
        gradients.extend(adds.then(|| Some(g.clone())));
        gradients
    });
    let out = activation(&out, act);
    residual.map_or(out.clone(), |r| add(&out, r))
}

/// [`conv2d`] 3x3 with one pixel of padding of [`upsample_nearest_2x`]: `[B, H, W, in]` to `[B, 2H, 2W, out]`. On the CPU the
/// doubled picture is never made, and the products are four ninths of those, forward and backward.
pub fn upsample_conv2d(x: &Tensor, weight: &Param, bias: Option<&Param>) -> Tensor {
    if gpu().is_some() {
        let doubled = upsample_nearest_2x(x);
        return conv2d(&doubled, weight, bias, Conv2d::padded(1), Activation::None, None);
    }
    let w = weight.on_tape();
    let b = bias.map(Param::tensor);
    let mut inputs = vec![x, &w];
    inputs.extend(&b);
    if let Some(trial) = weight.trial() {
        trial.compare(weight, |w| conv2d::forward_doubled(x, w, None));
    }
    let out = conv2d::forward_doubled(x, weight, b.as_ref());
    if !is_recording(&inputs) {
        return out;
    }
    let (x_saved, weight_saved) = (x.detach(), weight.clone());
    let wants = [x.node.is_some(), w.node.is_some()];
    let has_bias = b.is_some();
    record(out, &inputs, move |g| {
        let dx = wants[0].then(|| conv2d::grad_input_doubled(x_saved.shape(), g, &weight_saved));
        let dtype = weight_saved.products_dtype();
        let dw = wants[1].then(|| conv2d::grad_weight_doubled(g, &x_saved, dtype));
        vec![dx, dw, has_bias.then(|| sum_rows(g))]
    })
}
