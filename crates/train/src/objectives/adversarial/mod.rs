//! Students that learn from a discriminator.

mod ladd;

#[cfg(test)]
pub(crate) use ladd::Ladd;
pub(crate) use ladd::LaddConfig;
