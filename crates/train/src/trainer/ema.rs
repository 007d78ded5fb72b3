//! Exponential moving average of parameters: the weights that are sampled from and exported.

use prima_tensor::device::for_each;
use prima_tensor::{Param, Tensor, ema_update};

pub(crate) struct Ema {
    params: Vec<(String, Param)>,
    pub(crate) shadow: Vec<Tensor>,
    decay: f32,
}

impl Ema {
    pub(crate) fn new(params: &[(String, Param)], decay: f32) -> Self {
        let shadow = params.iter().map(|(_, p)| p.tensor().detach()).collect();
        Self {
            params: params.to_vec(),
            shadow,
            decay,
        }
    }

    /// `shadow += (1 - decay) (params - shadow)`; early on the decay is capped at
    /// `(1 + step) / (10 + step)` (diffusers' EMAModel) so that the start is forgotten.
    pub(crate) fn update(&mut self, step: u64) {
        let decay = self.decay.min((1 + step) as f32 / (10 + step) as f32);
        for_each(self.params.iter().zip(&mut self.shadow), |((_, param), shadow)| {
            ema_update(shadow, &param.tensor(), decay);
        });
    }

    /// Puts the averaged weights in place of the trained ones, which it returns.
    pub(crate) fn lend(&self) -> Vec<Tensor> {
        let trained = self.params.iter().map(|(_, p)| p.tensor().detach()).collect();
        self.copy_to_params();
        trained
    }

    /// Puts the trained weights back.
    pub(crate) fn take_back(&self, trained: &[Tensor]) {
        for ((_, param), tensor) in self.params.iter().zip(trained) {
            param.set(tensor);
        }
    }

    /// Overwrites the trained weights with the average (the end of training).
    pub(crate) fn copy_to_params(&self) {
        for ((_, param), shadow) in self.params.iter().zip(&self.shadow) {
            param.set(shadow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_approaches_a_constant_and_is_only_lent() {
        let param = Param::new(Tensor::zeros(&[2]));
        let mut ema = Ema::new(&[("p".into(), param.clone())], 0.5);
        param.update(|v| v.fill(1.0));
        ema.update(1000);
        ema.update(1000);
        let trained = ema.lend();
        assert_eq!(param.tensor().data(), [0.75, 0.75]);
        ema.take_back(&trained);
        assert_eq!(param.tensor().data(), [1.0, 1.0]);
    }
}
