//! `--device` and `--dtype`: where a command computes, and in what.

use crate::Usage;
use crate::out::note;
use anyhow::Result;
#[cfg(feature = "cuda")]
use prima_cuda::open;
#[cfg(not(feature = "cuda"))]
use prima_tensor::Device;
use prima_tensor::{DType, DeviceChoice, DeviceError};
use prima_train::Launch;

#[derive(clap::Args)]
pub struct Args {
    /// cpu, cuda[:N] for an NVIDIA GPU, or auto for a GPU where there is one (`prima doctor` says what there is)
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: DeviceChoice,
    /// Storage of the weights, and on a GPU of the activations: f32 or bf16
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = dtype)]
    pub dtype: DType,
    /// On a GPU, let products of f32 values round them to TF32 first: faster, and less exact
    #[arg(long)]
    tf32: bool,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Cpu,
            dtype: DType::F32,
            tf32: false,
        }
    }
}

impl Args {
    /// Opens the device for all that this process computes.
    pub fn choose(&self) -> Result<()> {
        self.open(self.device)
    }

    fn open(&self, choice: DeviceChoice) -> Result<()> {
        if self.tf32 && (self.dtype != DType::F32 || self.device == DeviceChoice::Cpu) {
            let message = "--tf32 is for --dtype f32 on a GPU: leave it away, or use --device cuda --dtype f32";
            return Err(Usage(message.to_owned()).into());
        }
        let (device, why_not) = open(choice, self.dtype, self.tf32)?;
        if let Some(why_not) = why_not {
            note!("computing on the CPU: {why_not}");
        }
        device.make_default();
        Ok(())
    }
}

impl Args {
    /// The same where weights are trained: they are f32 in any case, so bf16 is for a GPU's activations only. Of several
    /// processes on a machine each takes the GPU of its local rank.
    pub fn choose_for_training(&self, launch: &Launch) -> Result<()> {
        if self.dtype != DType::F32 && self.device == DeviceChoice::Cpu {
            let message = "--dtype bf16 is not possible in training on the CPU: use f32, or --device cuda";
            return Err(Usage(message.to_owned()).into());
        }
        if launch.world > 1 && self.device == DeviceChoice::Auto {
            let message = "--device auto is not possible with several processes: use cpu or cuda";
            return Err(Usage(message.to_owned()).into());
        }
        if launch.world == 1 || self.device != DeviceChoice::Cuda(0) {
            return self.choose();
        }
        match self.open(DeviceChoice::Cuda(launch.local_rank)) {
            // Some launchers show each process its own GPU only.
            Err(error) if matches!(error.downcast_ref(), Some(DeviceError::NoSuchGpu { count: 1, .. })) => {
                self.choose()
            }
            other => other,
        }
    }
}

/// The CPU, unless a GPU is asked for.
#[cfg(not(feature = "cuda"))]
fn open(choice: DeviceChoice, _: DType, _: bool) -> Result<(Device, Option<DeviceError>), DeviceError> {
    match choice {
        DeviceChoice::Cpu => Ok((Device::cpu(), None)),
        DeviceChoice::Auto => Ok((Device::cpu(), Some(DeviceError::WithoutCuda))),
        DeviceChoice::Cuda(_) => Err(DeviceError::WithoutCuda),
    }
}

fn dtype(name: &str) -> Result<DType, String> {
    match name {
        "f32" => Ok(DType::F32),
        "bf16" => Ok(DType::BF16),
        _ => Err("use f32 or bf16".to_owned()),
    }
}

#[cfg(all(test, not(feature = "cuda")))]
mod tests {
    use super::*;

    #[test]
    fn without_cuda_a_gpu_is_refused_and_auto_says_why_it_is_the_cpu() {
        let refused = open(DeviceChoice::Cuda(0), DType::F32, false).err().unwrap();
        assert!(refused.to_string().starts_with("this binary was built without CUDA"));
        let (device, why_not) = open(DeviceChoice::Auto, DType::F32, false).unwrap();
        assert!(!device.is_gpu() && matches!(why_not, Some(DeviceError::WithoutCuda)));
    }
}
