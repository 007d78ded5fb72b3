//! The kernels' sources and their compilation by NVRTC, with a cache on disk.

use crate::error::CudaError;
use crate::libraries::{Library, open};
use cudarc::nvrtc::sys;
use prima_tensor::DType;
use sha2::{Digest, Sha256};
use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};

/// Every file of kernels: name and text.
pub const KERNEL_FILES: &[(&str, &str)] = &[
    ("attention", include_str!("attention.cu")),
    ("attention_mma", include_str!("attention_mma.cu")),
    ("conv", include_str!("conv.cu")),
    ("elementwise", include_str!("elementwise.cu")),
    ("gemm", include_str!("gemm.cu")),
    ("layout", include_str!("layout.cu")),
    ("noise", include_str!("noise.cu")),
    ("norm", include_str!("norm.cu")),
    ("optimizer", include_str!("optimizer.cu")),
    ("reduce", include_str!("reduce.cu")),
];

/// What they include.
const HEADERS: &[(&CStr, &str)] = &[
    (c"attention.cuh", include_str!("attention.cuh")),
    (c"common.cuh", include_str!("common.cuh")),
    (c"gemm.cuh", include_str!("gemm.cuh")),
    (c"mma.cuh", include_str!("mma.cuh")),
];

/// Length of the checksum that a cache file begins with.
const CHECKSUM_BYTES: usize = 32;

/// NVRTC, and a folder that keeps what it made.
pub struct Compiler {
    version: (i32, i32),
    cache: Option<PathBuf>,
}

impl Compiler {
    /// `cache`: a folder, made when needed; `None` compiles each time.
    pub fn new(cache: Option<PathBuf>) -> Result<Self, CudaError> {
        let missing = || CudaError::MissingLibrary {
            library: Library::Nvrtc,
        };
        open(Library::Nvrtc).ok_or_else(missing)?;
        // SAFETY: only asks whether the library can be opened.
        if !unsafe { sys::is_culib_present() } {
            return Err(missing());
        }
        let mut version = (0, 0);
        // SAFETY: both pointers are valid for the call.
        check("nvrtcVersion", unsafe {
            sys::nvrtcVersion(&raw mut version.0, &raw mut version.1)
        })?;
        Ok(Self { version, cache })
    }

    /// Where kernels are kept: `$XDG_CACHE_HOME/prima/kernels` or `~/.cache/prima/kernels`.
    pub fn default_cache() -> Option<PathBuf> {
        let base = match std::env::var_os("XDG_CACHE_HOME") {
            Some(base) => PathBuf::from(base),
            None => Path::new(&std::env::var_os("HOME")?).join(".cache"),
        };
        Some(base.join("prima/kernels"))
    }

    /// The machine code of one file of kernels for `arch` (such as `sm_90`), whose activations are `dtype`.
    pub fn compile(&self, file: &str, dtype: DType, arch: &str) -> Result<Vec<u8>, CudaError> {
        let source = KERNEL_FILES.iter().find(|(name, _)| *name == file);
        let source = source.map_or("", |(_, text)| text);
        let cached = self.cache.as_ref().map(|cache| {
            let key = self.key(file, source, dtype, arch);
            cache.join(format!("{file}-{key}.cubin"))
        });
        if let Some(code) = cached.as_deref().and_then(read_cached) {
            return Ok(code);
        }
        let code = self.compile_text(file, source, dtype, arch)?;
        if let Some(path) = &cached {
            // A cache that cannot be written costs time at the next start, nothing else.
            let _ = write_cached(path, &code);
        }
        Ok(code)
    }

    /// Compiles one text with prima's headers and options.
    pub fn compile_text(&self, file: &str, source: &str, dtype: DType, arch: &str) -> Result<Vec<u8>, CudaError> {
        let program = Program::new(file, source)?;
        let mut options = vec![format!("--gpu-architecture={arch}"), "--std=c++17".to_owned()];
        if dtype == DType::BF16 {
            options.push("-DPRIMA_BF16".to_owned());
        }
        let options: Vec<CString> = options.into_iter().filter_map(|o| CString::new(o).ok()).collect();
        let pointers: Vec<_> = options.iter().map(|o| o.as_ptr()).collect();
        // SAFETY: the program lives, and the options outlive the call.
        let result = unsafe { sys::nvrtcCompileProgram(program.0, pointers.len() as i32, pointers.as_ptr()) };
        match result {
            sys::nvrtcResult::NVRTC_SUCCESS => program.code(),
            sys::nvrtcResult::NVRTC_ERROR_COMPILATION => Err(CudaError::Compile {
                file: format!("{file}.cu"),
                arch: arch.to_owned(),
                log: program.log(),
            }),
            other => Err(CudaError::call("nvrtcCompileProgram", (other, program.log()))),
        }
    }

    /// Everything that the machine code depends on.
    fn key(&self, file: &str, source: &str, dtype: DType, arch: &str) -> String {
        let mut hash = Sha256::new();
        for (_, text) in HEADERS {
            hash.update(text);
        }
        let (major, minor) = self.version;
        hash.update(format!("{file}\n{source}\n{dtype:?} {arch} {major}.{minor}"));
        let hash = hash.finalize();
        let start = hash.first_chunk().copied().map_or(0, u128::from_be_bytes);
        format!("{start:032x}")
    }
}

/// The code in a cache file; `None` if there is none, or if its checksum says that it is not what was written.
fn read_cached(path: &Path) -> Option<Vec<u8>> {
    let bytes = std::fs::read(path).ok()?;
    let (checksum, code) = bytes.split_at_checked(CHECKSUM_BYTES)?;
    (Sha256::digest(code).as_slice() == checksum).then(|| code.to_vec())
}

/// Written beside its place and renamed: two processes may do this at once.
fn write_cached(path: &Path, code: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&temporary, [Sha256::digest(code).as_slice(), code].concat())?;
    std::fs::rename(&temporary, path)
}

fn check(call: &str, result: sys::nvrtcResult) -> Result<(), CudaError> {
    match result {
        sys::nvrtcResult::NVRTC_SUCCESS => Ok(()),
        other => Err(CudaError::call(call, other)),
    }
}

/// An NVRTC program, destroyed when dropped.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the handle came from nvrtcCreateProgram and is destroyed once.
        unsafe { sys::nvrtcDestroyProgram(&raw mut self.0) };
    }
}

impl Program {
    fn new(file: &str, source: &str) -> Result<Self, CudaError> {
        let text = |text: &str| CString::new(text).map_err(|e| CudaError::call("nvrtcCreateProgram", e));
        let (source, name) = (text(source)?, text(&format!("{file}.cu"))?);
        let headers = HEADERS
            .iter()
            .map(|(_, header)| text(header))
            .collect::<Result<Vec<_>, _>>()?;
        let header_texts: Vec<_> = headers.iter().map(|header| header.as_ptr()).collect();
        let header_names: Vec<_> = HEADERS.iter().map(|(name, _)| name.as_ptr()).collect();
        let mut program = Self(std::ptr::null_mut());
        // SAFETY: all texts end in a zero and outlive the call, which copies them.
        check("nvrtcCreateProgram", unsafe {
            sys::nvrtcCreateProgram(
                &raw mut program.0,
                source.as_ptr(),
                name.as_ptr(),
                HEADERS.len() as i32,
                header_texts.as_ptr(),
                header_names.as_ptr(),
            )
        })?;
        Ok(program)
    }

    fn log(&self) -> String {
        let mut len = 0;
        // SAFETY: the program lives, and the buffer has the length that NVRTC asks for.
        unsafe {
            sys::nvrtcGetProgramLogSize(self.0, &raw mut len);
            let mut log = vec![0u8; len.max(1)];
            sys::nvrtcGetProgramLog(self.0, log.as_mut_ptr().cast());
            String::from_utf8_lossy(&log).trim_end_matches('\0').trim().to_owned()
        }
    }

    fn code(&self) -> Result<Vec<u8>, CudaError> {
        let mut len = 0;
        // SAFETY: the program was compiled, and the buffer has the length that NVRTC asks for.
        unsafe {
            check("nvrtcGetCUBINSize", sys::nvrtcGetCUBINSize(self.0, &raw mut len))?;
            let mut code = vec![0u8; len];
            check("nvrtcGetCUBIN", sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast()))?;
            Ok(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corrupt_or_cut_cache_file_is_not_used() {
        let path = std::env::temp_dir().join(format!("prima-cache-{}/kernel.cubin", std::process::id()));
        write_cached(&path, b"machine code").unwrap();
        assert_eq!(read_cached(&path).unwrap(), b"machine code");
        let mut bytes = std::fs::read(&path).unwrap();
        for cut in [0, 10, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(read_cached(&path).is_none(), "{cut} bytes of {}", bytes.len());
        }
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(read_cached(&path).is_none());
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
