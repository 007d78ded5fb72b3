//! Launchers of optimizer.cu.

use crate::gpu::{CudaGpu, THREADS, args};
use crate::memory::{Array, tensor};
use prima_tensor::gpu::{DeviceArray, Updates};
use prima_tensor::{AdamWStep, DType, Moments, Tensor};
use std::sync::Arc;

impl Updates for CudaGpu {
    fn sum_squares(&self, tensors: &[&Tensor]) -> f32 {
        let arrays: Vec<_> = tensors.iter().map(|t| self.array(t, DType::F32)).collect();
        let blocks = |array: &Arc<Array>| self.blocks(array.len());
        let partial = self.empty(arrays.iter().map(blocks).sum(), DType::F32);
        let mut start = 0;
        for array in &arrays {
            let args = args![array, &partial, start, array.len()];
            let grid = [blocks(array), 1, 1];
            self.launch("optimizer", "sum_squares", DType::F32, grid, THREADS, args);
            start += grid[0];
        }
        self.sum_all(&partial, 1.0).host()[0]
    }

    fn adamw(&self, value: &mut Tensor, grad: &Tensor, moments: &mut Moments, step: &AdamWStep) {
        let n = value.numel();
        let old = [&*value, grad, &moments.exp_avg, &moments.exp_avg_sq].map(|t| self.array(t, DType::F32));
        let new = [(); 3].map(|()| self.empty(n, DType::F32));
        let args = args![
            &old[0],
            &old[1],
            &old[2],
            &old[3],
            &new[0],
            &new[1],
            &new[2],
            n,
            step.beta1,
            step.beta2,
            step.epsilon,
            step.grad_scale,
            step.step_size,
            step.inv_sqrt_correction2,
            step.keep
        ];
        self.each("optimizer", "adamw", DType::F32, n, args);
        let shape = value.shape().to_vec();
        let [new_value, exp_avg, exp_avg_sq] = new.map(|array| tensor(array, &shape));
        *value = new_value;
        *moments = Moments { exp_avg, exp_avg_sq };
    }

    fn ema(&self, average: &mut Tensor, value: &Tensor, decay: f32) {
        let n = average.numel();
        let [from, value] = [&*average, value].map(|t| self.array(t, DType::F32));
        let out = self.empty(n, DType::F32);
        self.each("optimizer", "ema", DType::F32, n, args![&from, &value, &out, n, decay]);
        *average = tensor(out, average.shape());
    }
}
