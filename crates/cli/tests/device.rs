//! `--device` and `prima doctor`. What holds without an NVIDIA driver is tested where there is none.

#[allow(dead_code)] // each test file uses its own part
mod common;

use common::{folder, golden, paint, prima, refused, stderr};
use serde_json::Value;

fn doctor() -> Value {
    let output = prima(&folder("doctor"), &["doctor", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn problem() -> Option<String> {
    doctor()["cuda"]["problem"].as_str().map(str::to_owned)
}

#[test]
fn doctor_says_what_the_processor_is_and_why_a_gpu_cannot_be_used() {
    let report = doctor();
    assert!(report["cpu"]["threads"].as_u64().unwrap() >= 1);
    assert!(!report["cpu"]["kernel"].as_str().unwrap().is_empty());
    let libraries = report["cuda"]["libraries"].as_array().unwrap();
    let names: Vec<&str> = libraries.iter().map(|l| l["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["the NVIDIA driver", "NVRTC", "cuBLASLt", "cuDNN", "NCCL"]);
    assert_eq!(report["cuda"]["usable"].as_bool().unwrap(), problem().is_none());
    if libraries[0]["found"] == false {
        assert!(problem().unwrap().contains("no NVIDIA driver was found (libcuda.so.1"));
    }
    let output = prima(&folder("doctor-text"), &["doctor"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success()
            && text.contains("kernel")
            && text.contains("never run on a GPU") == problem().is_none()
    );
}

#[test]
fn nonsense_devices_are_refused_with_the_known_ones() {
    for name in ["gpu", "cuda:x", "cuda:", "cuda:-1", "CPU", ""] {
        let folder = folder("nonsense-device");
        let output = paint(&folder, &golden("tiny-sdxl"), &["--device", name]);
        refused(&folder, &output, 2, &["auto, cpu, cuda or cuda:N"]);
    }
}

#[test]
fn without_a_driver_cuda_is_an_error_and_auto_paints_on_the_cpu() {
    let Some(problem) = problem() else {
        println!("not run: the errors of a machine without a GPU (this one has one)");
        return;
    };
    for name in ["cuda", "cuda:9"] {
        let folder = folder("no-gpu");
        let output = paint(&folder, &golden("tiny-sdxl"), &["--device", name]);
        refused(&folder, &output, 1, &[&problem]);
    }
    let folder = folder("auto");
    let args = ["--device", "auto", "--seed", "1", "--width", "64", "--height", "64"];
    let output = paint(&folder, &golden("tiny-sdxl"), &args);
    let said = stderr(&output);
    assert!(
        output.status.success() && said.contains("computing on the CPU") && said.contains(&problem),
        "{said}"
    );
    assert!(folder.join("out.png").exists());
    // Commands that serve say it before they listen.
    let output = prima(&folder, &["serve", "--port", "0", "--device", "cuda"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&problem));
}
