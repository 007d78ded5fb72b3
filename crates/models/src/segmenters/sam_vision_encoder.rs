//! `SamVisionEncoder`: a vision transformer whose layers attend in windows, a few of them to the whole picture, with biases by
//! distance.

use super::sam_config::SamConfig;
use crate::layers::{Conv, LayerNorm, Linear, Start};
use crate::{Cancelled, check};
use prima_checkpoint::{Error, Init, ParamSource};
use prima_tensor::{Activation, Conv2d, Param, Tensor, add, attention};

const EPS: f32 = 1e-6;

pub(super) struct VisionEncoder {
    projection: Conv,
    pos_embed: Param,
    layers: Vec<Layer>,
    neck: (Conv, LayerNorm, Conv, LayerNorm),
}

#[expect(clippy::struct_field_names, reason = "the files' names")]
struct Layer {
    layer_norm1: LayerNorm,
    attention: Attention,
    layer_norm2: LayerNorm,
    mlp: [Linear; 2],
    window: usize,
}

/// `SamVisionAttention` of pictures of `side` x `side` patches.
struct Attention {
    qkv: Linear,
    proj: Linear,
    rel_pos: [Param; 2],
    heads: usize,
    side: usize,
}

impl Attention {
    fn new(source: &mut dyn ParamSource, name: &str, config: &SamConfig, side: usize) -> Result<Self, Error> {
        let (width, heads) = (config.hidden_size, config.num_attention_heads);
        let mut rel_pos = |axis: &str| {
            let shape = [2 * side - 1, width / heads];
            source.param(&format!("{name}.rel_pos_{axis}"), &shape, Init::Zeros)
        };
        let rel_pos = [rel_pos("h")?, rel_pos("w")?];
        Ok(Self {
            qkv: Linear::new(source, &format!("{name}.qkv"), width, 3 * width, true, Start::Default)?,
            proj: Linear::new(source, &format!("{name}.proj"), width, width, true, Start::Default)?,
            rel_pos,
            heads,
            side,
        })
    }

    /// `[B, side², C]`. The bias of a query and a key is a sum of one by rows and one by columns: what the query makes of the
    /// key's row stands in as many further channels of the query as there are rows, where the key has a one for its own. One
    /// product gives scores with their biases then.
    fn forward(&self, x: &Tensor) -> Tensor {
        let (side, heads) = (self.side, self.heads);
        let (batch, width) = (x.dim(0), x.dim(2));
        let dim = width / heads;
        let wide = dim + 2 * side;
        let qkv = self.qkv.forward(x);
        let tables = self.rel_pos.each_ref().map(Param::tensor);
        // The op divides by the root of the number of channels, here the wider one.
        let (scale, one) = ((wide as f32 / dim as f32).sqrt(), (wide as f32).sqrt());
        let len = batch * side * side * heads * wide;
        let [mut q, mut k, mut v] = [vec![0.0; len], vec![0.0; len], vec![0.0; len]];
        for (i, token) in qkv.data().chunks_exact(3 * width).enumerate() {
            let place = [i / side % side, i % side];
            for head in 0..heads {
                let at = (i * heads + head) * wide;
                let [own_q, own_k, own_v] = [0, 1, 2].map(|part| &token[part * width + head * dim..][..dim]);
                let query = &mut q[at..at + wide];
                for (to, from) in query.iter_mut().zip(own_q) {
                    *to = scale * from;
                }
                k[at..at + dim].copy_from_slice(own_k);
                v[at..at + dim].copy_from_slice(own_v);
                for axis in 0..2 {
                    let first = dim + axis * side;
                    k[at + first + place[axis]] = 1.0;
                    for key in 0..side {
                        let row = place[axis] + side - 1 - key;
                        let bias = dot(own_q, &tables[axis].data()[row * dim..][..dim]);
                        query[first + key] = one * bias;
                    }
                }
            }
        }
        let [q, k, v] = [q, k, v].map(|values| Tensor::from_vec(values, &[batch, side * side, heads * wide]));
        let out = attention(&q, &k, &v, heads, false);
        let own = out.data().chunks_exact(wide).flat_map(|head| &head[..dim]).copied();
        self.proj.forward(&Tensor::from_vec(own.collect(), x.shape()))
    }
}

/// In lanes, which a plain sum would not be.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 16];
    let (a_parts, a_rest) = a.as_chunks::<16>();
    let (b_parts, b_rest) = b.as_chunks::<16>();
    for (a, b) in a_parts.iter().zip(b_parts) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

impl Layer {
    fn new(source: &mut dyn ParamSource, name: &str, config: &SamConfig, window: usize) -> Result<Self, Error> {
        let width = config.hidden_size;
        let mut linear = |part: &str, inputs, outputs| {
            Linear::new(source, &format!("{name}.{part}"), inputs, outputs, true, Start::Default)
        };
        let mlp = [
            linear("mlp.lin1", width, config.mlp_dim)?,
            linear("mlp.lin2", config.mlp_dim, width)?,
        ];
        Ok(Self {
            layer_norm1: LayerNorm::new(source, &format!("{name}.layer_norm1"), width, EPS)?,
            attention: Attention::new(source, &format!("{name}.attn"), config, window)?,
            layer_norm2: LayerNorm::new(source, &format!("{name}.layer_norm2"), width, EPS)?,
            mlp,
            window,
        })
    }

    /// `[1, grid, grid, C]`
    fn forward(&self, x: &Tensor) -> Tensor {
        let windows = Windows {
            grid: x.dim(1),
            side: self.window,
            width: x.dim(3),
        };
        let attended = self.attention.forward(&windows.cut(&self.layer_norm1.forward(x)));
        let x = add(x, &windows.joined(&attended));
        let h = self.mlp[0].activated(&self.layer_norm2.forward(&x), Activation::Gelu);
        self.mlp[1].plus(&h, &x)
    }
}

/// A picture's patches as windows, those at the right and the bottom filled up with zeros.
struct Windows {
    grid: usize,
    side: usize,
    width: usize,
}

impl Windows {
    fn across(&self) -> usize {
        self.grid.div_ceil(self.side)
    }

    /// The window and the place in it of each patch, and where the patch lies in the picture.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        let (grid, side, across) = (self.grid, self.side, self.across());
        (0..grid * grid).map(move |patch| {
            let (y, x) = (patch / grid, patch % grid);
            let window = y / side * across + x / side;
            (patch, (window * side + y % side) * side + x % side)
        })
    }

    /// `[windows, side², C]`
    fn cut(&self, x: &Tensor) -> Tensor {
        let (count, patches, width) = (self.across() * self.across(), self.side * self.side, self.width);
        if count == 1 && self.side == self.grid {
            return x.reshape(&[1, patches, width]);
        }
        let mut out = vec![0.0; count * patches * width];
        for (patch, place) in self.places() {
            out[place * width..][..width].copy_from_slice(&x.data()[patch * width..][..width]);
        }
        Tensor::from_vec(out, &[count, patches, width])
    }

    fn joined(&self, windows: &Tensor) -> Tensor {
        let (grid, width) = (self.grid, self.width);
        let mut out = vec![0.0; grid * grid * width];
        for (patch, place) in self.places() {
            out[patch * width..][..width].copy_from_slice(&windows.data()[place * width..][..width]);
        }
        Tensor::from_vec(out, &[1, grid, grid, width])
    }
}

impl VisionEncoder {
    pub fn new(config: &SamConfig, source: &mut dyn ParamSource) -> Result<Self, Error> {
        let (width, patch, grid, out) = (
            config.hidden_size,
            config.patch_size,
            config.image_embedding_size,
            config.output_channels,
        );
        let mut conv = |name: &str, sizes, geometry, bias| {
            Conv::new(
                source,
                &format!("vision_encoder.{name}"),
                sizes,
                geometry,
                bias,
                Start::Default,
            )
        };
        let projection = conv(
            "patch_embed.projection",
            [3, width, patch],
            Conv2d::strided(patch, 0),
            true,
        )?;
        let conv1 = conv("neck.conv1", [width, out, 1], Conv2d::padded(0), false)?;
        let conv2 = conv("neck.conv2", [out, out, 3], Conv2d::padded(1), false)?;
        let pos_embed = source.param("vision_encoder.pos_embed", &[1, grid, grid, width], Init::Zeros)?;
        let mut norm = |name: &str| LayerNorm::new(source, &format!("vision_encoder.neck.{name}"), out, EPS);
        let neck = (conv1, norm("layer_norm1")?, conv2, norm("layer_norm2")?);
        let layers = config.windows.iter().enumerate();
        let layers =
            layers.map(|(i, window)| Layer::new(source, &format!("vision_encoder.layers.{i}"), config, *window));
        Ok(Self {
            projection,
            pos_embed,
            layers: layers.collect::<Result<_, _>>()?,
            neck,
        })
    }

    pub fn forward(&self, picture: &Tensor, keep_going: &mut dyn FnMut() -> bool) -> Result<Tensor, Cancelled> {
        let mut h = add(&self.projection.forward(picture), &self.pos_embed.tensor());
        for layer in &self.layers {
            check(keep_going)?;
            h = layer.forward(&h);
        }
        let (conv1, norm1, conv2, norm2) = &self.neck;
        Ok(norm2.forward(&conv2.forward(&norm1.forward(&conv1.forward(&h)))))
    }
}
