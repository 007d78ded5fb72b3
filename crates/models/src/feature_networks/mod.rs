//! Networks that read pictures, for measuring them.

pub mod efficientnet_lite;
pub mod inception_v3;

pub use efficientnet_lite::{EfficientNetLite, EfficientNetLiteConfig, StageConfig};
pub use inception_v3::InceptionV3;
