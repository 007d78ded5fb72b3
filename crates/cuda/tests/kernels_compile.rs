//! Every kernel compiles for the GPUs that prima is meant for. NVRTC needs no GPU and no driver; `cargo xtask test` puts its
//! Python wheel below `target/nvrtc`. Where NVRTC cannot be had, this says that it did not run.

use prima_cuda::{Compiler, CudaError, KERNEL_FILES, look_in};
use prima_tensor::DType;
use std::path::{Path, PathBuf};

/// The oldest GPUs with bf16, and Hopper.
const ARCHITECTURES: [&str; 2] = ["sm_80", "sm_90"];

/// NVRTC, if it is here.
fn compiler(cache: Option<PathBuf>) -> Option<Compiler> {
    // Where xtask puts it: the target folder is two above cargo's folder for test files.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let wheel = target.join("nvrtc/nvidia/cu13/lib");
    look_in(&wheel);
    match Compiler::new(cache) {
        Ok(compiler) => Some(compiler),
        Err(error) => {
            assert!(matches!(error, CudaError::MissingLibrary { .. }), "{error}");
            println!("not run: compiling the kernels for GPUs ({error})");
            None
        }
    }
}

/// One test: NVRTC takes its time, and the cache makes the second round quick.
#[test]
fn every_kernel_compiles_for_each_architecture_and_is_kept() {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel-cache");
    let Some(compiler) = compiler(Some(cache.clone())) else {
        return;
    };
    let compile_all = || -> Vec<Vec<u8>> {
        let mut codes = Vec::new();
        for (file, _) in KERNEL_FILES {
            for dtype in [DType::F32, DType::BF16] {
                for arch in ARCHITECTURES {
                    let code = compiler.compile(file, dtype, arch);
                    codes.push(code.unwrap_or_else(|error| panic!("{error}")));
                }
            }
        }
        codes
    };
    let first = compile_all();
    assert_eq!(first.len(), KERNEL_FILES.len() * 4);
    assert!(first.iter().all(|code| code.starts_with(b"\x7fELF")), "machine code");

    // A kept file that is not what was written is made again.
    let some_file = std::fs::read_dir(&cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("noise-"))
        .unwrap();
    let sound = std::fs::read(&some_file).unwrap();
    std::fs::write(&some_file, &sound[..sound.len() / 2]).unwrap();
    assert_eq!(compile_all(), first);
    assert_eq!(std::fs::read(&some_file).unwrap(), sound);
}

#[test]
fn an_error_in_a_kernel_is_reported_with_its_line() {
    let Some(compiler) = compiler(None) else { return };
    let source = "#include \"common.cuh\"\nKERNEL(f, T* x) { y[0] = 1; }";
    let error = compiler.compile_text("broken", source, DType::F32, "sm_90");
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("broken.cu(2)") && text.contains("\"y\" is undefined"),
        "{text}"
    );
}
