//! Networks whose answers along one path agree.

mod ect;
mod lcm;
mod lcm_lora;

pub(crate) use ect::EctConfig;
pub(crate) use lcm::LcmConfig;
pub(crate) use lcm_lora::LcmLoraConfig;
#[cfg(test)]
pub(crate) use {
    ect::Ect,
    lcm::{Lcm, Learns},
    lcm_lora::learns as learns_a_lora,
};
