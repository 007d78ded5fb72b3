//! What only a GPU can tell, as one program that can be carried to a machine without cargo: every op and gradient, ten training
//! losses and a whole picture against the CPU's, all read back.
//!
//! `test_gpu [--device cuda:N] [--model FOLDER]`; the folder is a diffusers model, such as goldens/tiny-sdxl. Exit codes: 0 all agrees, 1
//! something differs, 3 there is no GPU and nothing ran.

#[path = "../../cuda/tests/common/checks.rs"]
mod checks;
#[path = "../../tensor/tests/common/mod.rs"]
mod common;
#[path = "../tests/common/pictures_on.rs"]
mod pictures_on;

use prima_cuda::report;
use prima_tensor::{DType, Device, DeviceChoice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What the picture has to reach: nearly the CPU's bytes in f32, no visible difference in bf16.
const LEAST_DB: [(DType, f64); 2] = [(DType::F32, 50.0), (DType::BF16, 40.0)];

/// A group of checks; it panics where the device differs from the CPU.
type Check = fn(checks::Open);

/// All of them, by name.
const ALL: [(&str, Check); 17] = [
    ("pointwise ops", checks::pointwise),
    ("losses", checks::losses),
    ("norms", checks::norms),
    ("layout", checks::layout),
    ("linear layers", checks::linear_layers),
    ("convolutions", checks::convolutions),
    ("fused and inference-only ops", checks::fused_and_inference_only),
    ("depthwise convolutions", checks::depthwise),
    ("attention", checks::attentions),
    ("attention on tensor cores", checks::attention_on_tensor_cores),
    ("epilogues of products", checks::epilogues),
    ("bytes of pictures", checks::picture_bytes),
    ("noise", checks::noise),
    ("optimizer steps", checks::optimizer_steps),
    ("sums of gradients", checks::gradient_sums),
    ("orthogonal matrices", checks::orthogonalized),
    ("ten training losses", checks::training),
];

struct Options {
    device: DeviceChoice,
    model: Option<PathBuf>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        device: DeviceChoice::Cuda(0),
        model: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} wants a value"))?;
        match arg.as_str() {
            "--device" => options.device = value.parse().map_err(|e| format!("{e}"))?,
            "--model" => options.model = Some(value.into()),
            _ => return Err(format!("{arg} is not known: use --device cuda:N or --model FOLDER")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(2);
        }
    };
    let open = |dtype| prima_cuda::open(options.device, dtype, false).map(|(device, _)| device);
    let devices = [DType::F32, DType::BF16].map(open);
    let [Ok(wide), Ok(narrow)] = &devices else {
        for error in devices.iter().filter_map(|device| device.as_ref().err()).take(1) {
            println!("no GPU here, nothing ran: {error}");
        }
        return ExitCode::from(3);
    };
    if !wide.is_gpu() {
        println!("no GPU here, nothing ran: --device names the CPU");
        return ExitCode::from(3);
    }
    println!("{:#?}", report());
    let device = |dtype| Some(if dtype == DType::F32 { wide } else { narrow }.clone());
    let mut failures = 0;
    for (name, check) in ALL {
        println!("{name}");
        failures += usize::from(!holds(name, || check(&device)));
    }
    match &options.model {
        None => println!("pictures: not run, --model names no folder"),
        Some(model) => failures += usize::from(!holds("pictures", || pictures(&device, model))),
    }
    println!("{failures} of {} groups differ from the CPU", ALL.len() + 1);
    ExitCode::from(u8::from(failures > 0))
}

/// Runs one group; a panic has said what differs.
fn holds(name: &str, f: impl FnOnce()) -> bool {
    let run = || prima_tensor::device::catch(f);
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            println!("{name}: FAILED: {error}");
            false
        }
        Err(_) => {
            println!("{name}: FAILED");
            false
        }
    }
}

fn pictures(device: &dyn Fn(DType) -> Option<Device>, model: &Path) {
    for (dtype, least_db) in LEAST_DB {
        let Some(device) = device(dtype) else { continue };
        let psnr = pictures_on::psnr(&device, dtype, model);
        println!("pictures, {dtype:?}: {psnr:.1} dB");
        assert!(psnr >= least_db, "{dtype:?}: {psnr:.1} dB, wanted {least_db}");
    }
}
