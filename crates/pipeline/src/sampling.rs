//! The one loop over a schedule's rows, for painting and for training alike.

use prima_schedulers::{Schedule, State};
use prima_tensor::{Tensor, affine, weighted_sum};

/// What the loop asks of its caller.
pub trait Sampling {
    type Error;

    /// What the network, guidance included, answers to scaled latents `[B, h, w, C]` at a timestep.
    fn model_output(&mut self, model_input: &Tensor, timestep: f32) -> Result<Tensor, Self::Error>;

    /// Standard normal noise in the latents' shape for the row of this number; asked for only where a row needs it.
    fn noise(&mut self, row: usize) -> Tensor;

    /// The sample after the row of this number, or what stands for it.
    fn settled(&mut self, _row: usize, sample: Tensor) -> Tensor {
        sample
    }

    /// After each step, which may take several rows: the latents and the picture that they are on their way to.
    fn after_step(&mut self, _sample: &Tensor, _denoised: &Tensor) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Noisy latents to clean ones: per row of the schedule one network evaluation and what follows from it. `latents` are noise
/// times [`Schedule::init_noise_sigma`], or a noised picture ([`Schedule::add_noise`]).
pub fn sample<S: Sampling>(schedule: &Schedule, latents: Tensor, sampling: &mut S) -> Result<Tensor, S::Error> {
    let mut state = State::new(latents);
    for (i, row) in schedule.rows.iter().enumerate() {
        let model_input = affine(&state.sample, row.input_scale as f32, 0.0);
        let model_output = sampling.model_output(&model_input, row.timestep as f32)?;
        let fresh = row.needs_noise().then(|| sampling.noise(schedule.start_index + i));
        let denoised = state.advance(row, &model_output, fresh.as_ref(), sum);
        state.sample = sampling.settled(i, state.sample);
        if row.ends_step {
            sampling.after_step(&state.sample, &denoised)?;
        }
    }
    Ok(state.sample)
}

/// `weighted_sum`, of as many terms as there are.
pub(crate) fn sum(terms: &[(f64, &Tensor)]) -> Tensor {
    match terms.split_at_checked(4) {
        Some((four, rest)) if !rest.is_empty() => {
            let four = weighted_sum(four);
            let terms: Vec<(f64, &Tensor)> = [(1.0, &four)].into_iter().chain(rest.iter().copied()).collect();
            sum(&terms)
        }
        _ => weighted_sum(terms),
    }
}
