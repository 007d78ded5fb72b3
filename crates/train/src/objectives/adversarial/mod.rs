//! Students that learn from a discriminator.

mod ladd;
mod lightning;

pub(crate) use ladd::LaddConfig;
pub(crate) use lightning::LightningConfig;
#[cfg(test)]
pub(crate) use {ladd::Ladd, lightning::Lightning};
