//! What there is on this machine: for `prima doctor`.

use crate::driver::{compute_capability, start, version_text};
use crate::error::{CudaError, failed};
use crate::libraries::{Library, open};
use cudarc::driver::result;

/// A library, if it was found.
#[derive(Clone, Debug)]
pub struct LibraryInfo {
    pub name: &'static str,
    /// Its file, or the name under which the system knows it.
    pub origin: Option<String>,
    pub version: Option<String>,
}

#[derive(Clone, Debug)]
pub struct GpuInfo {
    pub index: usize,
    pub name: String,
    /// Such as `9.0`.
    pub compute_capability: String,
    pub memory_total_bytes: usize,
    pub memory_free_bytes: usize,
}

#[derive(Clone, Debug)]
pub struct Report {
    pub libraries: Vec<LibraryInfo>,
    /// The CUDA version that the driver supports, where there is one.
    pub driver_cuda: Option<String>,
    pub gpus: Vec<GpuInfo>,
    /// Why `--device cuda` would not work, if so.
    pub problem: Option<CudaError>,
}

/// Looks at the libraries and, if there is a driver, at the GPUs.
pub fn report() -> Report {
    let libraries = [
        Library::Driver,
        Library::Nvrtc,
        Library::CublasLt,
        Library::Cudnn,
        Library::Nccl,
    ];
    let mut report = Report {
        libraries: libraries.map(library).into(),
        driver_cuda: None,
        gpus: Vec::new(),
        problem: None,
    };
    match start() {
        Err(error) => report.problem = Some(error),
        Ok((count, version)) => {
            report.driver_cuda = Some(version_text(version));
            for index in 0..count {
                match gpu(index) {
                    Ok(gpu) => report.gpus.push(gpu),
                    Err(error) => report.problem = Some(error),
                }
            }
        }
    }
    if report.problem.is_none() && open(Library::Nvrtc).is_none() {
        report.problem = Some(CudaError::MissingLibrary {
            library: Library::Nvrtc,
        });
    }
    report
}

fn library(which: Library) -> LibraryInfo {
    let found = open(which);
    LibraryInfo {
        name: which.title(),
        origin: found.map(|opened| opened.origin.display().to_string()),
        version: found.and_then(|opened| version(which, &opened.library)),
    }
}

/// What the library itself says.
fn version(which: Library, library: &libloading::Library) -> Option<String> {
    let number = |text: fn(usize) -> String, symbol: &[u8]| {
        // SAFETY: both libraries give this function this signature.
        let ask = unsafe { library.get::<unsafe extern "C" fn() -> usize>(symbol) }.ok()?;
        // SAFETY: it only returns a number.
        Some(text(unsafe { ask() }))
    };
    match which {
        Library::CublasLt => number(
            |n| format!("{}.{}.{}", n / 10000, n / 100 % 100, n % 100),
            b"cublasLtGetVersion",
        ),
        Library::Cudnn => number(
            |n| format!("{}.{}.{}", n / 10000, n / 100 % 100, n % 100),
            b"cudnnGetVersion",
        ),
        Library::Nvrtc => {
            let (mut major, mut minor) = (0, 0);
            // SAFETY: NVRTC gives this function this signature.
            let ask =
                unsafe { library.get::<unsafe extern "C" fn(*mut i32, *mut i32) -> i32>(b"nvrtcVersion") }.ok()?;
            // SAFETY: both pointers are valid for the call.
            let status = unsafe { ask(&raw mut major, &raw mut minor) };
            (status == 0).then(|| format!("{major}.{minor}"))
        }
        Library::Nccl => {
            let mut n = 0;
            // SAFETY: NCCL gives this function this signature.
            let ask = unsafe { library.get::<unsafe extern "C" fn(*mut i32) -> i32>(b"ncclGetVersion") }.ok()?;
            // SAFETY: the pointer is valid for the call.
            let status = unsafe { ask(&raw mut n) };
            (status == 0).then(|| format!("{}.{}.{}", n / 10000, n / 100 % 100, n % 100))
        }
        Library::Driver | Library::NvrtcBuiltins => None,
    }
}

fn gpu(index: usize) -> Result<GpuInfo, CudaError> {
    let device = result::device::get(index as i32).map_err(failed("cuDeviceGet"))?;
    let (major, minor) = compute_capability(device)?;
    // SAFETY: the device came from the driver; the context is given back below.
    let context = unsafe { result::primary_ctx::retain(device) }.map_err(failed("cuDevicePrimaryCtxRetain"))?;
    // SAFETY: the context was just retained.
    unsafe { result::ctx::set_current(context) }.map_err(failed("cuCtxSetCurrent"))?;
    let memory = result::mem_get_info().map_err(failed("cuMemGetInfo"));
    // SAFETY: retained above, released once.
    unsafe { result::primary_ctx::release(device) }.map_err(failed("cuDevicePrimaryCtxRelease"))?;
    let (free, total) = memory?;
    Ok(GpuInfo {
        index,
        name: result::device::get_name(device).map_err(failed("cuDeviceGetName"))?,
        compute_capability: format!("{major}.{minor}"),
        memory_total_bytes: total,
        memory_free_bytes: free,
    })
}
