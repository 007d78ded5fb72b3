//! Networks whose answers along one path agree.

mod lcm;

#[cfg(test)]
pub(crate) use lcm::Lcm;
pub(crate) use lcm::LcmConfig;
