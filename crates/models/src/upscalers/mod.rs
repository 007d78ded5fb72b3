//! Networks that enlarge pictures: the Real-ESRGAN family. Pictures are `[B, H, W, 3]` in 0..1.

mod pixels;
pub mod rrdbnet;
pub mod srvgg;

pub use rrdbnet::{RrdbNet, RrdbNetConfig};
pub use srvgg::{SrvggNetCompact, SrvggNetCompactConfig};
