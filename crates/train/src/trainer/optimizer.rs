//! AdamW (Loshchilov and Hutter 2019, as `torch.optim.AdamW` computes it), with Muon for hidden layers where it is asked for,
//! clipping of the global gradient norm, and the learning-rate schedule.

use super::muon::{MuonConfig, MuonStep};
use prima_tensor::device::for_each;
use prima_tensor::{AdamWStep, Gradients, Moments, Param, Tensor, adamw_update, global_norm};
use serde::{Deserialize, Serialize};

/// Hyper-parameters, named as torch names them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    pub learning_rate: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
    /// Decoupled decay, applied to matrices and convolutions only (rank 2 and more).
    pub weight_decay: f32,
    /// The gradient is scaled down to this global norm; 0 leaves it alone.
    pub max_grad_norm: f32,
    pub lr_warmup_steps: u64,
    pub lr_scheduler: LrScheduler,
    /// The schedule ends at this fraction of `learning_rate`.
    pub lr_final_fraction: f32,
    /// Muon for the matrices and convolutions of hidden layers, at the same learning rate and decay.
    pub muon: Option<MuonConfig>,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            learning_rate: 8e-4,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            lr_warmup_steps: 50,
            lr_scheduler: LrScheduler::Cosine,
            lr_final_fraction: 0.02,
            muon: None,
        }
    }
}

/// How the learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrScheduler {
    Constant,
    Linear,
    Cosine,
}

impl AdamWConfig {
    /// The learning rate at `step`, when the fraction `progress` of the budget is spent.
    pub(crate) fn learning_rate_at(&self, step: u64, progress: f32) -> f32 {
        let warmup = ((step + 1) as f32 / self.lr_warmup_steps.max(1) as f32).min(1.0);
        let progress = progress.clamp(0.0, 1.0);
        let decay = match self.lr_scheduler {
            LrScheduler::Constant => 1.0,
            LrScheduler::Linear => 1.0 - progress,
            LrScheduler::Cosine => 0.5 * (1.0 + (std::f32::consts::PI * progress).cos()),
        };
        let floor = self.lr_final_fraction;
        self.learning_rate * warmup * (floor + (1.0 - floor) * decay)
    }
}

pub struct AdamW {
    pub(crate) config: AdamWConfig,
    params: Vec<(String, Param)>,
    pub(crate) moments: Vec<Moments>,
    /// Updates made so far: the exponent of the bias correction.
    pub(crate) step: u64,
}

impl AdamW {
    pub fn new(config: AdamWConfig, params: &[(String, Param)]) -> Self {
        let moments = params.iter().map(|(_, p)| Moments::zeros(&p.shape())).collect();
        Self {
            config,
            params: params.to_vec(),
            moments,
            step: 0,
        }
    }

    pub(crate) fn params(&self) -> &Vec<(String, Param)> {
        &self.params
    }

    /// One update at `learning_rate`. Returns the gradient's global norm before clipping; when it
    /// is not finite nothing is changed.
    pub fn update(&mut self, gradients: &Gradients, learning_rate: f32) -> f32 {
        let reached: Vec<&Tensor> = self.params.iter().filter_map(|(_, p)| gradients.param(p)).collect();
        let norm = global_norm(&reached);
        if !norm.is_finite() {
            return norm;
        }
        let max = self.config.max_grad_norm;
        self.step += 1;
        let step = i32::try_from(self.step).unwrap_or(i32::MAX);
        let correction1 = 1.0 - f64::from(self.config.beta1).powi(step);
        let correction2 = 1.0 - f64::from(self.config.beta2).powi(step);
        let without_decay = AdamWStep {
            beta1: self.config.beta1,
            beta2: self.config.beta2,
            epsilon: self.config.epsilon,
            grad_scale: if max > 0.0 && norm > max { max / norm } else { 1.0 },
            step_size: (f64::from(learning_rate) / correction1) as f32,
            inv_sqrt_correction2: (1.0 / correction2.sqrt()) as f32,
            keep: 1.0,
        };
        let with_decay = AdamWStep {
            keep: 1.0 - learning_rate * self.config.weight_decay,
            ..without_decay
        };
        let muon_step = MuonStep {
            grad_scale: with_decay.grad_scale,
            learning_rate,
            keep: with_decay.keep,
        };
        let muon = self.config.muon;
        for_each(self.params.iter().zip(&mut self.moments), |((key, param), moments)| {
            if let Some(grad) = gradients.param(param) {
                if let Some(muon) = muon.filter(|_| MuonConfig::moves(key, &param.shape())) {
                    return muon.update(param, grad, &mut moments.exp_avg, &muon_step);
                }
                let is_matrix = param.shape().len() >= 2;
                let step = if is_matrix { &with_decay } else { &without_decay };
                adamw_update(param, grad, moments, step);
            }
        });
        norm
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prima_tensor::weighted_mse;

    fn config() -> AdamWConfig {
        AdamWConfig {
            learning_rate: 0.1,
            beta2: 0.999,
            weight_decay: 0.1,
            max_grad_norm: 0.0,
            ..AdamWConfig::default()
        }
    }

    /// Gradients of `mean((p - 0)^2)` = 2 p / n.
    fn quadratic(param: &Param) -> Gradients {
        let x = param.tensor().reshape(&[1, param.numel()]);
        weighted_mse(&x, &Tensor::zeros(&[1, param.numel()]), &[1.0]).backward()
    }

    #[test]
    fn first_step_moves_by_the_learning_rate_after_decoupled_decay() {
        let param = Param::new(Tensor::from_vec(vec![1.0, -2.0], &[1, 2]));
        param.set_trainable(true);
        let mut adam = AdamW::new(config(), &[("p".into(), param.clone())]);
        adam.update(&quadratic(&param), 0.1);
        // m/(1-b1) = g and sqrt(v/(1-b2)) = |g|: p (1 - lr wd) - lr sign(g).
        let got = param.tensor().data().to_vec();
        assert!(
            (got[0] - (0.99 - 0.1)).abs() < 1e-6 && (got[1] - (-1.98 + 0.1)).abs() < 1e-6,
            "{got:?}"
        );
    }

    #[test]
    fn three_steps_follow_the_recurrence_in_f64() {
        let param = Param::new(Tensor::from_vec(vec![0.7], &[1, 1]));
        param.set_trainable(true);
        let mut adam = AdamW::new(config(), &[("p".into(), param.clone())]);
        let (mut p, mut m, mut v) = (0.7f64, 0.0f64, 0.0f64);
        for t in 1..=3 {
            adam.update(&quadratic(&param), 0.1);
            let g = 2.0 * p;
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            p = p * (1.0 - 0.01) - 0.1 * (m / (1.0 - 0.9f64.powi(t))) / ((v / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-8);
        }
        assert!((f64::from(param.tensor().data()[0]) - p).abs() < 1e-5);
    }

    #[test]
    fn clipping_makes_the_update_independent_of_a_gradient_scale_above_the_norm() {
        let values = [30.0, -40.0];
        let param = Param::new(Tensor::from_vec(values.to_vec(), &[1, 2]));
        param.set_trainable(true);
        let mut adam = AdamW::new(
            AdamWConfig {
                max_grad_norm: 1.0,
                ..config()
            },
            &[("p".into(), param.clone())],
        );
        let norm = adam.update(&quadratic(&param), 0.0);
        assert!((norm - 50.0).abs() < 1e-3);
        let m = adam.moments[0].exp_avg.data();
        assert!((m[0] - 0.06).abs() < 1e-6 && (m[1] + 0.08).abs() < 1e-6, "{m:?}");
    }

    #[test]
    fn the_learning_rate_warms_up_then_falls_to_its_floor() {
        let c = AdamWConfig {
            learning_rate: 1.0,
            lr_warmup_steps: 10,
            lr_final_fraction: 0.1,
            ..AdamWConfig::default()
        };
        assert!((c.learning_rate_at(0, 0.0) - 0.1).abs() < 1e-6);
        assert!((c.learning_rate_at(9, 0.0) - 1.0).abs() < 1e-6);
        assert!((c.learning_rate_at(500, 0.5) - 0.55).abs() < 1e-6);
        assert!((c.learning_rate_at(1000, 1.0) - 0.1).abs() < 1e-6);
    }
}
