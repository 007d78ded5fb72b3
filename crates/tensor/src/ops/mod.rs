//! What each op is: shapes, forward, backward. The fast kernels are in `cpu/`.

mod activation;
mod attention;
pub mod bands;
mod conv2d;
mod depthwise;
mod elementwise;
mod embedding;
mod layout;
pub(crate) mod linear;
mod loss;
mod norm;
mod optimizer;
mod orthogonalize;
mod picture;
mod resample;

pub use activation::{Activation, activation, geglu, prelu};
pub use attention::{AttentionSizes, attention, attention_in};
pub use conv2d::{Conv2d, ConvolutionSizes, conv2d, upsample_conv2d};
pub use depthwise::depthwise_conv2d;
pub use elementwise::{Binary, add, add_per_sample_channel, affine, combine_per_sample, mul, sub, weighted_sum};
pub use embedding::{add_positions, embedding, gather_rows};
pub use layout::{
    concat_channels, concat_tokens, narrow_channels, nchw_to_nhwc, nhwc_to_nchw, stack_batch, take_batch,
};
pub use linear::linear;
pub use loss::{Loss, mean_absolute_error, weighted_mse, weighted_pseudo_huber};
pub use norm::{group_norm, group_norm_within, layer_norm};
pub use optimizer::{AdamWStep, Moments, adamw_update, descend, ema_update, global_norm, momentum_update};
pub(crate) use orthogonalize::QUINTIC;
pub use orthogonalize::orthogonalize;
pub use picture::picture_bytes;
pub use resample::{avg_pool_global, upsample_nearest_2x};
