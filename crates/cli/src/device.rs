//! `--device` and `--dtype`: where a command computes, and in what.

use crate::Usage;
use anyhow::Result;
use prima_tensor::{DType, Device, DeviceChoice};

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
        if self.tf32 && (self.dtype != DType::F32 || self.device == DeviceChoice::Cpu) {
            let message = "--tf32 is for --dtype f32 on a GPU: leave it away, or use --device cuda --dtype f32";
            return Err(Usage(message.to_owned()).into());
        }
        let (device, why_not) = Device::open_with(self.device, self.dtype, self.tf32)?;
        if let Some(why_not) = why_not {
            eprintln!("computing on the CPU: {why_not}");
        }
        device.make_default();
        Ok(())
    }
}

impl Args {
    /// The same where weights are trained: they are f32 in any case, so bf16 is for a GPU's activations only.
    pub fn choose_for_training(&self) -> Result<()> {
        if self.dtype != DType::F32 && self.device == DeviceChoice::Cpu {
            let message = "--dtype bf16 is not possible in training on the CPU: use f32, or --device cuda";
            return Err(Usage(message.to_owned()).into());
        }
        self.choose()
    }
}

fn dtype(name: &str) -> Result<DType, String> {
    match name {
        "f32" => Ok(DType::F32),
        "bf16" => Ok(DType::BF16),
        _ => Err("use f32 or bf16".to_owned()),
    }
}
