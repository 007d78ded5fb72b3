//! What `prima doctor` says of NVIDIA GPUs.

use crate::out::say;
use prima_cuda::report;
use serde_json::{Value, json};

/// What a GPU is said to be worth before one has run prima.
const UNTRIED: &str = "prima's GPU code compiles and is tested by emulation; it has never run on a GPU";

pub fn json() -> Value {
    let report = report();
    let libraries = report.libraries.iter().map(|library| {
        json!({
            "name": library.name,
            "found": library.origin.is_some(),
            "origin": library.origin,
            "version": library.version,
        })
    });
    let gpus = report.gpus.iter().map(|gpu| {
        json!({
            "device": format!("cuda:{}", gpu.index),
            "name": gpu.name,
            "compute_capability": gpu.compute_capability,
            "memory_total_bytes": gpu.memory_total_bytes,
            "memory_free_bytes": gpu.memory_free_bytes,
        })
    });
    json!({
        "usable": report.problem.is_none(),
        "problem": report.problem.as_ref().map(ToString::to_string),
        "driver_cuda": report.driver_cuda,
        "libraries": libraries.collect::<Vec<_>>(),
        "gpus": gpus.collect::<Vec<_>>(),
        "note": UNTRIED,
    })
}

pub fn print() -> anyhow::Result<()> {
    let report = report();
    for library in &report.libraries {
        let origin = library.origin.as_deref().unwrap_or("not found");
        let version = library.version.as_deref().unwrap_or("");
        say!("  {:<18} {version:<10} {origin}", library.name);
    }
    if let Some(version) = &report.driver_cuda {
        say!("  the driver supports CUDA {version}");
    }
    for gpu in &report.gpus {
        say!(
            "  cuda:{}  {}, compute capability {}, {} of {} MiB free",
            gpu.index,
            gpu.name,
            gpu.compute_capability,
            gpu.memory_free_bytes >> 20,
            gpu.memory_total_bytes >> 20
        );
    }
    match &report.problem {
        Some(problem) => say!("  --device cuda cannot be used: {problem}"),
        None => say!("  --device cuda can be tried; {UNTRIED}"),
    }
    Ok(())
}
