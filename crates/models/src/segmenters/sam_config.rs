//! What a Segment Anything model is made of, what it is asked, and what it answers.

use crate::config::invalid;
use prima_checkpoint::Error;
use prima_tensor::Tensor;

/// Layers of any file.
const LAYERS: usize = 1000;

/// What the shapes of a file's tensors say of `SamModel`. Its other arguments are those of all published files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SamConfig {
    /// Of the vision encoder.
    pub hidden_size: usize,
    pub num_attention_heads: usize,
    pub mlp_dim: usize,
    pub patch_size: usize,
    /// Sides of the windows in which each layer attends, in patches; the grid's own where it attends to the whole picture.
    pub windows: Vec<usize>,
    /// Patches along a side of the picture.
    pub image_embedding_size: usize,
    /// Channels of the picture's embedding and of the decoder.
    pub output_channels: usize,
    pub mask_input_channels: usize,
    pub decoder_layers: usize,
    pub decoder_mlp_dim: usize,
    pub attention_downsample_rate: usize,
    pub num_mask_tokens: usize,
    pub iou_head_hidden_dim: usize,
    pub iou_head_depth: usize,
}

impl SamConfig {
    /// By transformers' keys; `None` where the tensors are of another network.
    pub fn of_shapes(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<Self> {
        let [hidden_size, 3, patch_size, _] = shape("vision_encoder.patch_embed.projection.weight")?[..] else {
            return None;
        };
        let image_embedding_size = *shape("vision_encoder.pos_embed")?.get(1)?;
        let rel_pos = |layer: usize| shape(&format!("vision_encoder.layers.{layer}.attn.rel_pos_h"));
        let windows = (0..).map_while(rel_pos).map(|rows| Some(rows.first()?.div_ceil(2)));
        let head_dim = *rel_pos(0)?.get(1)?;
        let rows = |key: &str| shape(key)?.first().copied();
        let count = |key: &dyn Fn(usize) -> String| (0..LAYERS).take_while(|i| shape(&key(*i)).is_some()).count();
        let output_channels = rows("vision_encoder.neck.conv1.weight")?;
        let inner = rows("mask_decoder.transformer.final_attn_token_to_image.q_proj.weight")?;
        Some(Self {
            hidden_size,
            num_attention_heads: hidden_size.checked_div(head_dim)?,
            mlp_dim: rows("vision_encoder.layers.0.mlp.lin1.weight")?,
            patch_size,
            windows: windows.collect::<Option<_>>()?,
            image_embedding_size,
            output_channels,
            mask_input_channels: rows("prompt_encoder.mask_embed.conv2.weight")?,
            decoder_layers: count(&|i| format!("mask_decoder.transformer.layers.{i}.layer_norm1.weight")),
            decoder_mlp_dim: rows("mask_decoder.transformer.layers.0.mlp.lin1.weight")?,
            attention_downsample_rate: output_channels.checked_div(inner)?,
            num_mask_tokens: rows("mask_decoder.mask_tokens.weight")?,
            iou_head_hidden_dim: rows("mask_decoder.iou_prediction_head.proj_in.weight")?,
            iou_head_depth: 2 + count(&|i| format!("mask_decoder.iou_prediction_head.layers.{i}.weight")),
        })
    }

    /// Pixels along a side of the picture that is encoded.
    pub fn image_size(&self) -> usize {
        self.image_embedding_size * self.patch_size
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let divides = |a: usize, b: usize| a > 0 && b.is_multiple_of(a);
        let is_possible = divides(self.num_attention_heads, self.hidden_size)
            && divides(8, self.output_channels)
            && divides(8 * self.attention_downsample_rate, self.output_channels)
            && divides(4, self.mask_input_channels)
            && self.windows.iter().all(|window| *window > 0)
            && (1..=4096).contains(&self.image_size());
        if is_possible {
            return Ok(());
        }
        Err(invalid(format!("{self:?} is not a Segment Anything model")))
    }
}

/// What is asked about a picture, in pixels of the encoded one, whose pixels have their centres at halves.
#[derive(Clone, Debug, Default)]
pub struct SamPrompt {
    /// x, y, and whether the place belongs to what is meant.
    pub points: Vec<([f32; 2], bool)>,
    /// Left, top, right, bottom.
    pub bounds: Option<[f32; 4]>,
    /// Logits of an earlier answer, `[1, 4·grid, 4·grid, 1]`.
    pub mask: Option<Tensor>,
}

/// Answers: the first is the best single one, the others are a part, a whole and something between.
#[derive(Clone, Debug)]
pub struct SamMasks {
    /// Above 0 where a pixel belongs to it: `[masks, 4·grid, 4·grid]`.
    pub logits: Tensor,
    /// How well each is thought to fit (intersection over union), 0 to 1.
    pub iou_scores: Vec<f32>,
}
