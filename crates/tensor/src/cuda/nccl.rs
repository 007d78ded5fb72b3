//! NCCL: sums over the GPUs of several processes. Its four functions are looked up here and not through `cudarc`, which knows the
//! library as `libnccl.so` only; packages install `libnccl.so.2`.
//!
//! It compiles; it has never run.

use super::backend::Peers;
use super::driver::failed;
use super::error::{DeviceError, fail};
use super::gpu::Gpu;
use super::libraries::{Library, open};
use crate::{DType, Tensor};
use cudarc::driver::{result, sys};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Arc;

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
unsafe fn function<F: Copy>(name: &str) -> Result<F, DeviceError> {
    let opened = open(Library::Nccl).ok_or(DeviceError::NoNccl)?;
    // SAFETY: the caller's promise; the library is never closed.
    let found = unsafe { opened.library.get::<F>(name.as_bytes()) };
    found.map(|f| *f).map_err(|e| DeviceError::call(name, e))
}

fn check(call: &str, status: Status) -> Result<(), DeviceError> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: this is the function's type in nccl.h.
    let describe = unsafe { function::<unsafe extern "C" fn(Status) -> *const c_char>("ncclGetErrorString") }?;
    // SAFETY: it returns a constant text that ends in zero.
    let text = unsafe { CStr::from_ptr(describe(status)) };
    Err(DeviceError::call(call, text))
}

/// One process's part in the sums of all.
pub(super) struct Nccl {
    comm: Comm,
    context: sys::CUcontext,
    stream: sys::CUstream,
}

// SAFETY: the communicator may be used from any thread, one at a time, once the context is current there, which `sum` sees to.
unsafe impl Send for Nccl {}

impl Nccl {
    /// Waits for all others. The context is current in this thread; sums are taken in `stream`.
    pub fn join(
        context: sys::CUcontext,
        stream: sys::CUstream,
        id: [u8; 128],
        rank: usize,
        world: usize,
    ) -> Result<Self, DeviceError> {
        type Init = unsafe extern "C" fn(*mut Comm, c_int, UniqueId, c_int) -> Status;
        // SAFETY: this is the function's type in nccl.h.
        let init = unsafe { function::<Init>("ncclCommInitRank") }?;
        let mut comm = std::ptr::null_mut();
        // SAFETY: the pointer is valid for the call; the id came from ncclGetUniqueId of rank 0.
        let status = unsafe { init(&raw mut comm, world as c_int, UniqueId(id), rank as c_int) };
        check("ncclCommInitRank", status)?;
        Ok(Self { comm, context, stream })
    }
}

impl Peers for Nccl {
    unsafe fn sum(&self, from: u64, to: u64, len: usize) -> Result<(), DeviceError> {
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

impl Drop for Nccl {
    fn drop(&mut self) {
        // Aborting does not wait for the others, which may be gone.
        // SAFETY: this is the function's type in nccl.h.
        if let Ok(abort) = unsafe { function::<unsafe extern "C" fn(Comm) -> Status>("ncclCommAbort") } {
            // SAFETY: the communicator is used for the last time.
            unsafe { abort(self.comm) };
        }
    }
}

/// The GPUs of several processes, each of which computes on one.
pub struct Communicator {
    gpu: Arc<Gpu>,
    peers: Box<dyn Peers>,
}

impl Communicator {
    /// Room for an id.
    pub const ID: [u8; 128] = [0; 128];

    /// A name for a group that is not formed yet: one process makes it, all join with it.
    pub fn new_id() -> Result<[u8; 128], DeviceError> {
        // SAFETY: this is the function's type in nccl.h.
        let get = unsafe { function::<unsafe extern "C" fn(*mut UniqueId) -> Status>("ncclGetUniqueId") }?;
        let mut id = UniqueId(Self::ID);
        // SAFETY: the pointer is valid for the call.
        check("ncclGetUniqueId", unsafe { get(&raw mut id) })?;
        Ok(id.0)
    }

    /// Joins with the GPU on which this thread computes, as `rank` of `world`; waits for the others.
    pub fn join(id: [u8; 128], rank: usize, world: usize) -> Result<Self, DeviceError> {
        let gpu = crate::device::gpu().ok_or(DeviceError::NoGpu)?;
        let peers = gpu.backend().join(id, rank, world)?;
        Ok(Self { gpu, peers })
    }

    /// The sum over all processes, in f32; each of them calls this with a tensor of the same size.
    pub fn sum(&self, tensor: &Tensor) -> Tensor {
        let from = self.gpu.array(tensor, DType::F32);
        let out = self.gpu.empty(from.len(), DType::F32);
        // SAFETY: both arrays have this many values and outlive the call; the pool hands them out again in the order of the
        // stream only.
        unsafe { self.peers.sum(from.address(), out.address(), from.len()) }.unwrap_or_else(|error| fail(error));
        Tensor::from_array(out, tensor.shape())
    }
}
