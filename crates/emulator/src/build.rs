//! Compiling the kernels, and a driver that stands in for NVIDIA's.

use prima_cuda::KERNEL_FILES;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

/// Where the kernels are.
const KERNELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../cuda/src");
/// Where what they are compiled with is.
const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

/// A library of all kernels, built once in a process; `None` without a C++ compiler.
pub fn kernels() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| {
        let Some(compiler) = compiler() else {
            println!("not run: the kernels by emulation (there is no C++ compiler c++ here)");
            return None;
        };
        Some(link(&compiler, &objects(&compiler), &[], "libkernels.so"))
    });
    library.as_deref()
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

/// A folder with a `libcuda.so` that stands in for NVIDIA's driver: one GPU, emulated. `None` without a C++ compiler. Not
/// `libcuda.so.1`: NVRTC would find that one and ask it for things that the mock does not know.
pub fn mock_driver() -> Option<PathBuf> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        let compiler = compiler()?;
        let source = Path::new(HERE).join("mock_driver.cpp");
        let source = source.to_string_lossy();
        let library = link(&compiler, &objects(&compiler), &[&source, "-ldl"], "libcuda.so");
        Some(library.parent().unwrap().to_path_buf())
    };
    FOLDER.get_or_init(build).clone()
}

/// Below the target folder, in which the test that asks lies two folders deep.
fn folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(3).unwrap().join("tmp/emulated-kernels")
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
    let source = Path::new(KERNELS).join(file);
    let headers = ["attention.cuh", "common.cuh", "gemm.cuh", "mma.cuh"].map(|name| Path::new(KERNELS).join(name));
    let emulate = Path::new(HERE).join("emulate.h");
    let modified = |path: &Path| {
        path.metadata()
            .and_then(|m| m.modified())
            .unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let texts = headers.iter().chain([&source, &emulate]);
    let newest = texts.map(|path| modified(path)).max().unwrap();
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
        "-I",
        HERE,
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
