//! Muon (Jordan et al. 2024), as `torch.optim.Muon` computes it, but for what it rounds to bf16: there the matrix, here the
//! factors of the products where the parameter's are.

use prima_tensor::{Param, Tensor, descend, momentum_update, orthogonalize};
use serde::{Deserialize, Serialize};

/// Muon moves a matrix by its averaged gradient made orthogonal, so that no direction of it is left behind. The step has the
/// root mean square that AdamW's usually has (`match_rms_adamw`), so learning rates carry over.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MuonConfig {
    pub momentum: f32,
    pub nesterov: bool,
    /// Steps of the Newton-Schulz iteration.
    pub ns_steps: usize,
}

impl Default for MuonConfig {
    fn default() -> Self {
        Self {
            momentum: 0.95,
            nesterov: true,
            ns_steps: 5,
        }
    }
}

impl MuonConfig {
    /// Is this parameter one of a hidden layer's matrices? Tables of embeddings and what touches pictures or latents are not.
    pub(super) fn moves(key: &str, shape: &[usize]) -> bool {
        const OUTER: [&str; 4] = ["_embedding.weight", "conv_in.", "conv_out.", "class_embedding"];
        let rows = shape.first().copied().unwrap_or(0);
        let columns: usize = shape.iter().skip(1).product();
        shape.len() >= 2 && rows.min(columns) >= 16 && !OUTER.iter().any(|outer| key.contains(outer))
    }

    /// With `g = grad_scale · grad`: moves the average towards `g`, and the parameter against what is made of it.
    pub(super) fn update(&self, param: &Param, grad: &Tensor, average: &mut Tensor, step: &MuonStep) {
        let direction = momentum_update(average, grad, step.grad_scale, self.momentum, self.nesterov);
        let shape = param.shape();
        let (rows, columns) = (shape[0], shape[1..].iter().product::<usize>());
        let direction = direction.reshape(&[rows, columns]);
        let direction = orthogonalize(&direction, self.ns_steps, param.products_dtype()).reshape(&shape);
        let size = 0.2 * (rows.max(columns) as f32).sqrt();
        descend(param, &direction, step.keep, step.learning_rate * size);
    }
}

/// The scalars of one update by Muon.
pub(super) struct MuonStep {
    /// Multiplies the gradient: clipping.
    pub(super) grad_scale: f32,
    pub(super) learning_rate: f32,
    /// `1 - learning rate · weight decay`.
    pub(super) keep: f32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prima_checkpoint::TensorFile;
    use std::path::Path;

    #[test]
    fn three_steps_are_those_of_torch() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/muon.safetensors");
        let file = TensorFile::open(&file).unwrap();
        let step = MuonStep {
            grad_scale: 1.0,
            learning_rate: 0.02,
            keep: 1.0 - 0.02 * 0.1,
        };
        for matrix in ["wide", "tall"] {
            let param = Param::new(file.read(&format!("{matrix}.start")).unwrap());
            let mut average = Tensor::zeros(&param.shape());
            for number in 0..3 {
                let gradient = file.read(&format!("{matrix}.gradient.{number}")).unwrap();
                MuonConfig::default().update(&param, &gradient, &mut average, &step);
                let wanted = file.read(&format!("{matrix}.after.{number}")).unwrap();
                let pairs = param.tensor().data().to_vec();
                let apart = pairs.iter().zip(wanted.data()).map(|(a, b)| (a - b).abs());
                let worst = apart.fold(0.0, f32::max);
                assert!(worst < 1e-5, "{matrix}, step {number}: {worst}");
            }
        }
    }

    #[test]
    fn hidden_matrices_are_moved_and_nothing_else() {
        let moved = |key, shape: &[usize]| MuonConfig::moves(key, shape);
        assert!(moved("down_blocks.0.resnets.0.conv1.weight", &[96, 3, 3, 96]));
        assert!(moved("mid_block.attentions.0.proj_in.weight", &[320, 320]));
        assert!(!moved("conv_in.weight", &[96, 3, 3, 16]));
        assert!(!moved("down_blocks.0.resnets.0.conv1.bias", &[96]));
        assert!(!moved("text_model.embeddings.token_embedding.weight", &[12288, 64]));
        assert!(!moved("a.weight", &[8, 4096]));
    }
}
