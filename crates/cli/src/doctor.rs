//! `prima doctor`: what this machine has, and what of it prima can use.

#[cfg(feature = "cuda")]
mod cuda;

/// Of a binary without CUDA.
#[cfg(not(feature = "cuda"))]
mod cuda {
    use crate::out::say;
    use prima_tensor::DeviceError;
    use serde_json::{Value, json};

    pub fn json() -> Value {
        let problem = DeviceError::WithoutCuda.to_string();
        json!({"usable": false, "problem": problem, "driver_cuda": null, "libraries": [], "gpus": []})
    }

    pub fn print() -> anyhow::Result<()> {
        say!("  {}", DeviceError::WithoutCuda);
        Ok(())
    }
}

use crate::out::say;
use anyhow::Result;
use prima_tensor::{cpu_features, kernel_name};
use serde_json::json;

#[derive(clap::Args)]
pub struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    if args.json {
        let report = json!({
            "prima": env!("CARGO_PKG_VERSION"),
            "cpu": {
                "architecture": std::env::consts::ARCH,
                "features": cpu_features(),
                "kernel": kernel_name(),
                "threads": rayon::current_num_threads(),
            },
            "cuda": cuda::json(),
        });
        say!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    say!("prima {}", env!("CARGO_PKG_VERSION"));
    say!("\nCPU ({})", std::env::consts::ARCH);
    say!("  features   {}", cpu_features().join(", "));
    say!("  kernel     {}", kernel_name());
    say!("  threads    {}", rayon::current_num_threads());
    say!("\nCUDA");
    cuda::print()
}
