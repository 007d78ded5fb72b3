//! Exponential moving average of parameters: the weights that are sampled from and exported.

use prima_tensor::device::for_each;
use prima_tensor::{Param, Tensor, ema_update};

pub struct Ema {
    params: Vec<(String, Param)>,
    pub(crate) shadow: Vec<Tensor>,
    decay: f32,
}

impl Ema {
    pub fn new(params: &[(String, Param)], decay: f32) -> Self {
        let shadow = params.iter().map(|(_, p)| p.tensor().detach()).collect();
        Self {
            params: params.to_vec(),
            shadow,
            decay,
        }
    }

    /// `shadow += (1 - decay) (params - shadow)`; early on the decay is capped at
    /// `(1 + step) / (10 + step)` (diffusers' EMAModel) so that the start is forgotten.
    pub fn update(&mut self, step: u64) {
        let decay = self.decay.min((1 + step) as f32 / (10 + step) as f32);
        for_each(self.params.iter().zip(&mut self.shadow), |((_, param), shadow)| {
            ema_update(shadow, &param.tensor(), decay);
        });
    }

    /// Runs `f` with the averaged weights in place of the trained ones.
    pub fn with_average<T>(&self, f: impl FnOnce() -> T) -> T {
        let trained: Vec<Tensor> = self.params.iter().map(|(_, p)| p.tensor().detach()).collect();
        self.copy_to_params();
        let out = f();
        for ((_, param), tensor) in self.params.iter().zip(&trained) {
            param.set(tensor);
        }
        out
    }

    /// Overwrites the trained weights with the average (the end of training).
    pub fn copy_to_params(&self) {
        for ((_, param), shadow) in self.params.iter().zip(&self.shadow) {
            param.set(shadow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_approaches_a_constant_and_is_lent_only_for_the_closure() {
        let param = Param::new(Tensor::zeros(&[2]));
        let mut ema = Ema::new(&[("p".into(), param.clone())], 0.5);
        param.update(|v| v.fill(1.0));
        ema.update(1000);
        ema.update(1000);
        let seen = ema.with_average(|| param.tensor().data().to_vec());
        assert_eq!(seen, [0.75, 0.75]);
        assert_eq!(param.tensor().data(), [1.0, 1.0]);
    }
}
