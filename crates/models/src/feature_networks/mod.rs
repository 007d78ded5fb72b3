//! Networks that read pictures, for measuring them.

pub mod efficientnet_lite;

pub use efficientnet_lite::{EfficientNetLite, EfficientNetLiteConfig, StageConfig};
