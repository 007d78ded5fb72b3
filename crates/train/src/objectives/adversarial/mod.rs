//! Students that learn from a discriminator.

mod add;
mod game;
mod gan;
mod ladd;
mod lightning;

pub(crate) use add::AddConfig;
pub(crate) use gan::GanConfig;
pub(crate) use ladd::LaddConfig;
pub(crate) use lightning::LightningConfig;
#[cfg(test)]
pub(crate) use {add::Add, gan::Gan, ladd::Ladd, lightning::Lightning};
