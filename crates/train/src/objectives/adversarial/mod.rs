//! Students that learn from a discriminator.

mod add;
mod game;
mod ladd;
mod lightning;

pub(crate) use add::AddConfig;
pub(crate) use ladd::LaddConfig;
pub(crate) use lightning::LightningConfig;
#[cfg(test)]
pub(crate) use {add::Add, ladd::Ladd, lightning::Lightning};
