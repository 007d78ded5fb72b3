//! Students that go in one step where their teacher takes several.

mod progressive;

#[cfg(test)]
pub(crate) use progressive::Progressive;
pub(crate) use progressive::ProgressiveConfig;
