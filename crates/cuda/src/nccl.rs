//! NCCL: sums over the GPUs of several processes. Its four functions are looked up here and not through `cudarc`, which knows the
//! library as `libnccl.so` only; packages install `libnccl.so.2`.
//!
//! It compiles; it has never run.

use crate::error::{CudaError, failed};
use crate::libraries::{Library, open};
use cudarc::driver::{result, sys};
use prima_tensor::gpu::GroupId;
use std::ffi::{CStr, c_char, c_int, c_void};

/// `ncclUniqueId`.
#[repr(C)]
#[derive(Clone, Copy)]
struct UniqueId([u8; 128]);

type Comm = *mut c_void;
/// `ncclResult_t`; 0 is success.
type Status = c_int;

/// `ncclFloat32` of `ncclDataType_t`.
const FLOAT32: c_int = 7;
/// `ncclSum` of `ncclRedOp_t`.
const SUM: c_int = 0;

/// The function `name` of NCCL.
///
/// # Safety
/// `F` is the type of the function.
unsafe fn function<F: Copy>(name: &str) -> Result<F, CudaError> {
    let opened = open(Library::Nccl).ok_or(CudaError::NoNccl)?;
    // SAFETY: the caller's promise; the library is never closed.
    let found = unsafe { opened.library.get::<F>(name.as_bytes()) };
    found.map(|f| *f).map_err(|e| CudaError::call(name, e))
}

fn check(call: &str, status: Status) -> Result<(), CudaError> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: this is the function's type in nccl.h.
    let describe = unsafe { function::<unsafe extern "C" fn(Status) -> *const c_char>("ncclGetErrorString") }?;
    // SAFETY: it returns a constant text that ends in zero.
    let text = unsafe { CStr::from_ptr(describe(status)) };
    Err(CudaError::call(call, text))
}

/// One process's part in the sums of all.
pub struct Communicator {
    comm: Comm,
    context: sys::CUcontext,
    stream: sys::CUstream,
}

// SAFETY: the communicator may be used from any thread, one at a time, once the context is current there, which `sum` sees to.
unsafe impl Send for Communicator {}

impl Communicator {
    /// Waits for all others. The context is current in this thread; sums are taken in `stream`.
    pub(crate) fn join(
        context: sys::CUcontext,
        stream: sys::CUstream,
        id: GroupId,
        rank: usize,
        world: usize,
    ) -> Result<Self, CudaError> {
        type Init = unsafe extern "C" fn(*mut Comm, c_int, UniqueId, c_int) -> Status;
        // SAFETY: this is the function's type in nccl.h.
        let init = unsafe { function::<Init>("ncclCommInitRank") }?;
        let mut comm = std::ptr::null_mut();
        // SAFETY: the pointer is valid for the call; the id came from ncclGetUniqueId of rank 0.
        let status = unsafe { init(&raw mut comm, world as c_int, UniqueId(id), rank as c_int) };
        check("ncclCommInitRank", status)?;
        Ok(Self { comm, context, stream })
    }

    /// The sum of `len` f32 values over all of them, in the order of this GPU's other work.
    ///
    /// # Safety
    /// As many values at `from` and at `to` belong to the caller, and all processes call this with the same `len`.
    pub(crate) unsafe fn sum(&self, from: u64, to: u64, len: usize) -> Result<(), CudaError> {
        type AllReduce =
            unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, sys::CUstream) -> Status;
        // SAFETY: the context lives as long as the process.
        unsafe { result::ctx::set_current(self.context) }.map_err(failed("cuCtxSetCurrent"))?;
        // SAFETY: this is the function's type in nccl.h; a cudaStream_t is a CUstream.
        let all_reduce = unsafe { function::<AllReduce>("ncclAllReduce") }?;
        // SAFETY: the caller's promise.
        let status = unsafe {
            all_reduce(
                from as *const c_void,
                to as *mut c_void,
                len,
                FLOAT32,
                SUM,
                self.comm,
                self.stream,
            )
        };
        check("ncclAllReduce", status)
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        // Aborting does not wait for the others, which may be gone.
        // SAFETY: this is the function's type in nccl.h.
        if let Ok(abort) = unsafe { function::<unsafe extern "C" fn(Comm) -> Status>("ncclCommAbort") } {
            // SAFETY: the communicator is used for the last time.
            unsafe { abort(self.comm) };
        }
    }
}

/// A name for a group that is not formed yet.
pub(crate) fn new_id() -> Result<GroupId, CudaError> {
    // SAFETY: this is the function's type in nccl.h.
    let get = unsafe { function::<unsafe extern "C" fn(*mut UniqueId) -> Status>("ncclGetUniqueId") }?;
    let mut id = UniqueId([0; 128]);
    // SAFETY: the pointer is valid for the call.
    check("ncclGetUniqueId", unsafe { get(&raw mut id) })?;
    Ok(id.0)
}
