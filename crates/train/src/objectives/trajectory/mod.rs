//! Students that go in one step where their teacher takes several.

mod mean_flow;
pub(super) mod phases;
mod progressive;

pub(crate) use mean_flow::MeanFlowConfig;
pub(crate) use progressive::ProgressiveConfig;
#[cfg(test)]
pub(crate) use {mean_flow::MeanFlow, progressive::Progressive};
