//! The kernels compiled for the CPU by the system's C++ compiler. Where there is none, the tests say that they did not run.
#![allow(dead_code)] // each test file uses its own part

use prima_tensor::cuda::{Emulator, KERNEL_FILES};
use prima_tensor::{DType, Device};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tensor/src/cuda");

/// A device that runs the kernels here, with activations of `dtype`; `None` without a C++ compiler.
pub fn device(dtype: DType) -> Option<Device> {
    device_with(dtype, 4 << 30)
}

/// The same with that much memory.
pub fn device_with(dtype: DType, limit_bytes: usize) -> Option<Device> {
    Some(Device::emulated(emulator(limit_bytes)?, dtype))
}

/// The same, as if NVIDIA's library of products were there.
pub fn device_with_library(dtype: DType) -> Option<Device> {
    Some(Device::emulated(emulator(4 << 30)?.with_library_products(), dtype))
}

fn emulator(limit_bytes: usize) -> Option<Emulator> {
    static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| {
        let library = library();
        if library.is_none() {
            println!("not run: the kernels by emulation (there is no C++ compiler c++ here)");
        }
        library
    });
    Some(Emulator::open(library.as_ref()?, limit_bytes).unwrap())
}

fn compiler() -> Option<String> {
    let name = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let runs = Command::new(&name).arg("--version").output();
    runs.is_ok_and(|output| output.status.success()).then_some(name)
}

/// Links what was compiled, with more sources, into `name` of this process's own folder.
fn link(compiler: &str, objects: &[PathBuf], more: &[&str], name: &str) -> PathBuf {
    let folder = folder().join(std::process::id().to_string());
    std::fs::create_dir_all(&folder).unwrap();
    let library = folder.join(name);
    let mut command = Command::new(compiler);
    command.args(["-shared", "-fPIC", "-O2", &format!("-Wl,-soname,{name}")]);
    let output = command
        .args(more)
        .args(objects)
        .arg("-o")
        .arg(&library)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

fn library() -> Option<PathBuf> {
    let compiler = compiler()?;
    Some(link(&compiler, &objects(&compiler), &[], "libkernels.so"))
}

/// A folder with a `libcuda.so` that stands in for NVIDIA's driver: one GPU, emulated. `None` without a C++ compiler. Not
/// `libcuda.so.1`: NVRTC would find that one and ask it for things that the mock does not know.
pub fn mock_driver() -> Option<PathBuf> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        let compiler = compiler()?;
        let source = Path::new(SOURCES).join("../../tests/common/mock_driver.cpp");
        let source = source.to_string_lossy();
        let library = link(&compiler, &objects(&compiler), &[&source, "-ldl"], "libcuda.so");
        Some(library.parent().unwrap().to_path_buf())
    };
    FOLDER.get_or_init(build).clone()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulated-kernels")
}

/// Compiles what changed since the last time.
fn objects(compiler: &str) -> Vec<PathBuf> {
    // The tests of one program run side by side and would write the same files.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = folder();
    std::fs::create_dir_all(&folder).unwrap();
    let jobs: Vec<(String, PathBuf, bool)> = KERNEL_FILES
        .iter()
        .flat_map(|(name, _)| [(name, false), (name, true)])
        .map(|(name, narrow)| {
            let object = format!("{name}_{}.o", if narrow { "bf16" } else { "f32" });
            (format!("{name}.cu"), folder.join(object), narrow)
        })
        .collect();
    let left = Mutex::new(jobs.iter());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some((file, object, narrow)) = left.lock().unwrap().next() else {
                        break;
                    };
                    compile(compiler, file, object, *narrow);
                }
            });
        }
    });
    jobs.into_iter().map(|(_, object, _)| object).collect()
}

fn compile(compiler: &str, file: &str, object: &Path, narrow: bool) {
    let source = Path::new(SOURCES).join(file);
    let headers =
        ["attention.cuh", "common.cuh", "gemm.cuh", "mma.cuh", "emulate.h"].map(|name| Path::new(SOURCES).join(name));
    let modified = |path: &Path| {
        path.metadata()
            .and_then(|m| m.modified())
            .unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let newest = headers
        .iter()
        .map(|path| modified(path))
        .max()
        .unwrap()
        .max(modified(&source));
    if modified(object) > newest {
        return;
    }
    // Written beside its place: several test binaries may do this at once.
    let temporary = object.with_extension(format!("{}.tmp", std::process::id()));
    let mut command = Command::new(compiler);
    command.args([
        "-std=c++17",
        "-O2",
        "-fPIC",
        "-ffp-contract=off",
        // A GPU's loads and stores of several values at once are casts of pointers.
        "-fno-strict-aliasing",
        "-DPRIMA_EMULATE",
        "-x",
        "c++",
        "-c",
    ]);
    if narrow {
        command.arg("-DPRIMA_BF16");
    }
    let output = command.arg(&source).arg("-o").arg(&temporary).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(&temporary, object).unwrap();
}
