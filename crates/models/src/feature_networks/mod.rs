//! Networks that read pictures, for measuring them.

pub mod clip;
pub mod efficientnet_lite;
pub mod inception_v3;

pub use clip::{Clip, ClipVisionConfig};
pub use efficientnet_lite::{EfficientNetLite, EfficientNetLiteConfig, StageConfig};
pub use inception_v3::InceptionV3;
