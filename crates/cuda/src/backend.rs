//! What the launchers ask of a device. Three things answer: a GPU ([`crate::driver`]), one that only counts
//! ([`crate::dry_run`]), and in the tests the kernels compiled for the CPU (`crates/emulator`).

use crate::error::CudaError;
use crate::nccl::Communicator;
use prima_tensor::DType;
use prima_tensor::gpu::GroupId;
use prima_tensor::ops::ConvolutionSizes;
use std::ffi::c_void;

/// One kernel: its file, its name there, and how activations are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KernelId {
    pub file: &'static str,
    pub name: &'static str,
    pub dtype: DType,
}

impl KernelId {
    /// What the compiled code calls it.
    pub fn symbol(self) -> String {
        let suffix = if self.dtype == DType::F32 { "f32" } else { "bf16" };
        format!("{}_{suffix}", self.name)
    }
}

/// Free and all memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    pub free: usize,
    pub total: usize,
}

/// The three products of a linear layer with weight `[n, k]` on `m` rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// `out [m, n] = x [m, k] · w [n, k]ᵀ`
    Forward,
    /// `dx [m, k] = grad [m, n] · w [n, k]`
    GradInput,
    /// `dw [n, k] = grad [m, n]ᵀ · x [m, k]`, in f32
    GradWeight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    pub direction: Direction,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub dtype: DType,
    /// Whether f32 factors may be rounded to TF32.
    pub tf32: bool,
    /// What the same call does to the sums; forward only.
    pub then: Then,
}

/// `relu(product + bias)`, or `product + bias + residual`: what a library's product can do beside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Then {
    /// `[n]`, of the product's type.
    pub bias: bool,
    pub relu: bool,
    /// `[m, n]`.
    pub residual: bool,
}

/// Addresses are device memory of this backend; all work is done in the order in which it is asked for.
pub trait Backend: Send + Sync {
    /// How many blocks run at once, roughly: the number of multiprocessors.
    fn multiprocessors(&self) -> usize;

    fn capacity(&self) -> Result<Capacity, CudaError>;

    /// Joins other processes' GPUs, as `rank` of `world`; `id` names the group.
    fn join(&self, _id: GroupId, _rank: usize, _world: usize) -> Result<Communicator, CudaError> {
        Err(CudaError::NoNccl)
    }

    /// `None`: no room.
    fn allocate(&self, bytes: usize) -> Result<Option<u64>, CudaError>;

    /// # Safety
    /// `address` came from [`allocate`](Self::allocate), with the same size, and is not used again.
    unsafe fn release(&self, address: u64, bytes: usize);

    /// Called for each piece of memory, new or used, before it is handed out.
    ///
    /// # Safety
    /// `bytes` bytes at `address` belong to the caller.
    unsafe fn hand_out(&self, _address: u64, _bytes: usize) {}

    /// # Safety
    /// As many bytes at `address` belong to the caller.
    unsafe fn upload(&self, bytes: &[u8], address: u64) -> Result<(), CudaError>;

    /// Waits for all work before it.
    ///
    /// # Safety
    /// As many bytes at `address` belong to the caller.
    unsafe fn download(&self, address: u64, bytes: &mut [u8]) -> Result<(), CudaError>;

    /// # Safety
    /// `bytes` bytes at `address` belong to the caller.
    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<(), CudaError>;

    /// From one place on the device to another.
    ///
    /// # Safety
    /// `bytes` bytes at both addresses belong to the caller, and they do not overlap.
    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), CudaError>;

    /// Waits for all work before it.
    fn synchronize(&self) -> Result<(), CudaError>;

    /// Work that this thread asks for from now on is noted, not done; that of other threads goes on. False: this device
    /// cannot, or is at it already.
    fn begin_recording(&self) -> Result<bool, CudaError>;

    /// Ends it; what was noted, to be named by this number.
    fn end_recording(&self) -> Result<u64, CudaError>;

    /// Does what was noted, with the same arguments at the same addresses.
    ///
    /// # Safety
    /// The memory that the work reads and writes is still as large and nobody else's.
    unsafe fn replay(&self, recording: u64) -> Result<(), CudaError>;

    /// The recording is not needed any more, and not replayed again.
    fn forget(&self, recording: u64);

    /// # Safety
    /// `args` are what the kernel's parameters are, each in the low bytes of eight; the memory that they name belongs to the
    /// caller.
    unsafe fn launch(
        &self,
        kernel: KernelId,
        grid: [u32; 3],
        threads: u32,
        args: &mut [*mut c_void],
    ) -> Result<(), CudaError>;

    /// Whether a library did it; otherwise a kernel of our own has to, as where there is no library.
    ///
    /// # Safety
    /// `a`, `b` and `out` have the sizes of `product`: (x, w), (grad, w) or (grad, x), by its direction; bias and residual
    /// have theirs where `product.then` names them.
    unsafe fn product(
        &self,
        product: &Product,
        a: u64,
        b: u64,
        out: u64,
        bias_and_residual: [u64; 2],
    ) -> Result<bool, CudaError> {
        let _ = (product, a, b, out, bias_and_residual);
        Ok(false)
    }

    /// The same for a convolution; the gradient of the weight is of type `dtype` like all the rest. `workspace` gives
    /// memory that stays until the call has returned.
    ///
    /// # Safety
    /// `a`, `b` and `out` have the sizes of `sizes`: (x, w), (grad, w) or (grad, x), by `direction`.
    unsafe fn convolution(
        &self,
        direction: Direction,
        sizes: &ConvolutionSizes,
        dtype: DType,
        tf32: bool,
        a: u64,
        b: u64,
        out: u64,
        workspace: &mut dyn FnMut(usize) -> u64,
    ) -> Result<bool, CudaError> {
        let _ = (direction, sizes, dtype, tf32, a, b, out, workspace);
        Ok(false)
    }
}
