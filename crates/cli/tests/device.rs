//! `--device` and `prima doctor`. What holds without an NVIDIA driver is tested where there is none.

#[allow(dead_code)] // each test file uses its own part
mod common;

use common::{folder, golden, paint, prima, refused, stderr};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Asked once: tests that run side by side would empty each other's folder.
fn doctor() -> &'static Value {
    static REPORT: OnceLock<Value> = OnceLock::new();
    REPORT.get_or_init(|| {
        let output = prima(&folder("doctor"), &["doctor", "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    })
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
    // Training and serving say it before anything else.
    let output = prima(&folder, &["train", "teacher", "config.json", "--device", "cuda"]);
    assert!(output.status.code() == Some(1) && stderr(&output).contains(&problem));
    let output = prima(&folder, &["serve", "--port", "0", "--device", "cuda"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&problem));
}

#[test]
fn training_on_the_cpu_in_bf16_is_refused() {
    let folder = folder("train-bf16");
    let output = prima(&folder, &["train", "latents", "config.json", "--dtype", "bf16"]);
    refused(&folder, &output, 2, &["bf16", "training on the CPU", "f32"]);
}

/// `prima` on a machine whose driver is the mock, with NVRTC where `cargo xtask test` puts it.
struct MockMachine {
    driver: PathBuf,
    folder: PathBuf,
}

impl MockMachine {
    fn new(name: &str) -> Option<Self> {
        let Some(driver) = prima_emulator::mock_driver() else {
            println!("not run: a mock driver (there is no C++ compiler c++ here)");
            return None;
        };
        let folder = folder(name);
        Some(Self { driver, folder })
    }

    fn run(&self, settings: &[(&str, &str)], args: &[&str]) -> Output {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let nvrtc = target.parent().unwrap().join("nvrtc/nvidia/cu13/lib");
        Command::new(env!("CARGO_BIN_EXE_prima"))
            .current_dir(&self.folder)
            .env(
                "PRIMA_CUDA_LIBRARIES",
                std::env::join_paths([&self.driver, &nvrtc]).unwrap(),
            )
            .env("XDG_CACHE_HOME", target.join("mock-cache"))
            .envs(settings.iter().copied())
            .args(args)
            .output()
            .unwrap()
    }

    fn paint(&self, settings: &[(&str, &str)], args: &[&str]) -> Output {
        let model = golden("tiny-sdxl").display().to_string();
        let start = [
            "paint",
            "a cat",
            "--model",
            &model,
            "-o",
            "out.png",
            "--overwrite",
            "--seed",
            "1",
        ];
        let size = ["--width", "24", "--height", "16"];
        self.run(settings, &[&start[..], &size, args].concat())
    }
}

#[test]
fn what_a_gpu_lacks_is_said_in_one_sentence() {
    if problem().is_none() {
        println!("not run: a mock driver (this machine has a real one)");
        return;
    }
    let Some(machine) = MockMachine::new("mock-errors") else {
        return;
    };
    let refuse = |settings: &[(&str, &str)], device: &str, code: i32, words: &[&str]| {
        let output = machine.paint(settings, &["--device", device]);
        refused(&machine.folder, &output, code, words);
    };
    refuse(&[], "cuda:9", 2, &["there is no GPU 9", "this machine has 1"]);
    refuse(
        &[("MOCK_CUDA_VERSION", "12040")],
        "cuda",
        1,
        &["supports CUDA 12.4", "needs 13.0"],
    );
    refuse(
        &[("MOCK_CUDA_DEVICES", "0")],
        "cuda",
        1,
        &["the NVIDIA driver found no GPU"],
    );
    let report = machine.run(&[], &["doctor", "--json"]);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    let gpu = &report["cuda"]["gpus"][0];
    assert_eq!(gpu["name"], "Mock GPU");
    assert_eq!(gpu["compute_capability"], "9.0");
    assert_eq!(gpu["memory_total_bytes"], 8_u64 << 30);
    if report["cuda"]["libraries"][1]["found"] == false {
        refuse(&[], "cuda", 1, &["NVRTC was not found"]);
    } else {
        refuse(
            &[("MOCK_CUDA_CAPABILITY", "7")],
            "cuda",
            1,
            &["Mock GPU has compute capability 7", "8.0"],
        );
    }
}

#[test]
fn the_binary_paints_through_the_driver_what_it_paints_on_the_cpu() {
    if problem().is_none() {
        println!("not run: a mock driver (this machine has a real one)");
        return;
    }
    let Some(machine) = MockMachine::new("mock-picture") else {
        return;
    };
    // Of four steps the second is captured in a graph, and launched from there on.
    let on_cpu = machine.paint(&[], &["--steps", "4"]);
    assert!(on_cpu.status.success(), "{}", stderr(&on_cpu));
    let want = image::open(machine.folder.join("out.png")).unwrap().to_rgb8();
    std::fs::remove_file(machine.folder.join("out.png")).unwrap();
    let on_gpu = machine.paint(&[("MOCK_CUDA_REPORT", "1")], &["--steps", "4", "--device", "cuda"]);
    let said = stderr(&on_gpu);
    if said.contains("NVRTC was not found") {
        println!("not run: a picture through the mock driver ({said})");
        return;
    }
    assert!(on_gpu.status.success() && said.contains("3 graph launches"), "{said}");
    let got = image::open(machine.folder.join("out.png")).unwrap().to_rgb8();
    let farthest = want
        .as_raw()
        .iter()
        .zip(got.as_raw())
        .map(|(a, b)| a.abs_diff(*b))
        .max();
    assert!(farthest.unwrap() <= 1, "a byte differs by {farthest:?}");
    // A card without room for it says so before anything is loaded.
    std::fs::remove_file(machine.folder.join("out.png")).unwrap();
    let model = golden("tiny-sdxl").display().to_string();
    let args = ["paint", "a cat", "--model", &model, "-o", "out.png", "--device", "cuda"];
    let size = ["--width", "1024", "--height", "1024"];
    let output = machine.run(&[("MOCK_CUDA_FREE_MIB", "300")], &[&args[..], &size].concat());
    let words = ["takes about", "300 MiB of 8.0 GiB are free", "what fits is"];
    refused(&machine.folder, &output, 1, &words);
}
