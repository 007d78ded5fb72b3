//! Networks whose answers along one path agree.

mod ect;
mod lcm;

pub(crate) use ect::EctConfig;
pub(crate) use lcm::LcmConfig;
#[cfg(test)]
pub(crate) use {ect::Ect, lcm::Lcm};
