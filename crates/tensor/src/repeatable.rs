//! Work that is done again and again.

use crate::{Tensor, autograd, device};
use std::sync::Arc;

/// Work that a GPU may record and replay: one for each thing that is done again and again.
#[derive(Debug, Default)]
pub struct Repeatable {
    owner: Arc<()>,
}

impl Repeatable {
    /// `work(inputs)`. On a GPU, off the tape, it may be a replay of what the work did before for inputs of the same shapes: it
    /// must do the same each time, and read nothing else that changes, parameters excepted.
    pub fn run<E>(
        &self,
        inputs: &[&Tensor],
        mut work: impl FnMut(&[Tensor]) -> Result<Tensor, E>,
    ) -> Result<Tensor, E> {
        let Some(gpu) = device::gpu().filter(|_| !autograd::is_on()) else {
            return work(&inputs.iter().map(|input| (*input).clone()).collect::<Vec<_>>());
        };
        let mut failure = None;
        let out = gpu.repeat(&self.owner, inputs, &mut |inputs| {
            work(inputs).map_err(|error| failure = Some(error)).ok()
        });
        match (out, failure) {
            (Some(out), _) => Ok(out),
            (None, Some(error)) => Err(error),
            (None, None) => panic!("repeated work without an output fails"),
        }
    }
}
