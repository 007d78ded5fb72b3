//! A device at work: where arrays are made, moved and handed to kernels. The ops' launchers are in the files named as the ops'.

use super::backend::{Backend, Kernel};
use super::error::fail;
use super::memory::{Array, Pool};
use crate::{DType, Param, Tensor};
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Threads of a block, where the kernel does not say otherwise.
pub(super) const THREADS: usize = 256;
/// Blocks a multiprocessor is given in loops over all elements: enough to hide memory's latency.
const BLOCKS_EACH: usize = 16;

pub(crate) struct Gpu {
    pool: Arc<Pool>,
    /// How activations are stored.
    dtype: DType,
    /// Tells devices apart, for what parameters keep by device.
    id: u64,
}

/// A kernel's parameter: an address, or a number in as many low bytes as the kernel reads.
#[derive(Clone, Copy)]
pub(super) struct Arg(u64);

impl From<&Array> for Arg {
    fn from(array: &Array) -> Self {
        Self(array.address())
    }
}

impl From<&Arc<Array>> for Arg {
    fn from(array: &Arc<Array>) -> Self {
        Self(array.address())
    }
}

impl From<Option<&Arc<Array>>> for Arg {
    fn from(array: Option<&Arc<Array>>) -> Self {
        Self(array.map_or(0, |array| array.address()))
    }
}

impl From<usize> for Arg {
    fn from(n: usize) -> Self {
        Self(n as u64)
    }
}

impl From<u32> for Arg {
    fn from(n: u32) -> Self {
        Self(u64::from(n))
    }
}

impl From<f32> for Arg {
    fn from(x: f32) -> Self {
        Self(u64::from(x.to_bits()))
    }
}

/// The parameters of a launch.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { &[$($crate::cuda::gpu::Arg::from($arg)),*] };
}
pub(super) use args;

/// In which form a parameter lies on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// f32, as in the file: biases, norms, tables that are added.
    Wide,
    /// As activations are stored, as in the file: matrices.
    Stored,
    /// As activations are stored, `[out, kh, kw, in]`.
    ChannelsLast,
}

impl Gpu {
    pub fn new(backend: Box<dyn Backend>, dtype: DType) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            pool: Pool::new(backend),
            dtype,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub(super) fn backend(&self) -> &dyn Backend {
        self.pool.backend()
    }

    pub(super) fn empty(&self, len: usize, dtype: DType) -> Array {
        Array::new(&self.pool, len, dtype)
    }

    pub(super) fn zeros(&self, len: usize, dtype: DType) -> Array {
        let array = self.empty(len, dtype);
        // SAFETY: the array has this many bytes, and is not shared yet.
        unsafe { self.backend().zero(array.address(), len * dtype.size()) }.unwrap_or_else(|error| fail(error));
        array
    }

    /// Any plain values, as they are.
    pub(super) fn upload<V: bytemuck::Pod>(&self, values: &[V]) -> Array {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let array = self.empty(bytes.len().div_ceil(4), DType::F32);
        // SAFETY: the array has at least this many bytes, and is not shared yet.
        unsafe { self.backend().upload(bytes, array.address()) }.unwrap_or_else(|error| fail(error));
        array
    }

    /// The tensor's values on this device, stored as `dtype`; without a copy if they are.
    pub(super) fn array(&self, tensor: &Tensor, dtype: DType) -> Arc<Array> {
        match tensor.array() {
            Some(array) if array.is_in(&self.pool) => self.cast(array, dtype),
            _ => self.cast(&Arc::new(self.upload(tensor.data())), dtype),
        }
    }

    pub(super) fn cast(&self, array: &Arc<Array>, dtype: DType) -> Arc<Array> {
        if array.dtype() == dtype {
            return array.clone();
        }
        let out = self.empty(array.len(), dtype);
        let (name, narrow) = match dtype {
            DType::F32 => ("to_f32", array.dtype()),
            _ => ("from_f32", dtype),
        };
        self.each(
            "elementwise",
            name,
            narrow,
            array.len(),
            args![array, &out, array.len()],
        );
        Arc::new(out)
    }

    /// How an op on these tensors computes: in f32 (latents, losses, gradients of parameters), unless one of them is stored as
    /// activations are.
    pub(super) fn common_dtype(&self, tensors: &[&Tensor]) -> DType {
        let narrow = |tensor: &&Tensor| tensor.array().is_some_and(|array| array.dtype() != DType::F32);
        if tensors.iter().any(narrow) {
            self.dtype
        } else {
            DType::F32
        }
    }

    /// The tensor's values on this device, off the tape.
    pub fn copy(&self, tensor: &Tensor) -> Tensor {
        Tensor::from_shared(self.array(tensor, self.common_dtype(&[tensor])), tensor.shape())
    }

    /// The tensor as activations are stored.
    pub(super) fn stored(&self, tensor: &Tensor) -> Arc<Array> {
        self.array(tensor, self.dtype)
    }

    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    /// The parameter in `form`; moved and changed once per value.
    pub(super) fn param(&self, param: &Param, form: Form) -> Arc<Array> {
        param.on_device(self.id, form, |tensor| {
            let wide = self.array(tensor, DType::F32);
            match form {
                Form::Wide => wide,
                Form::Stored => self.cast(&wide, self.dtype),
                Form::ChannelsLast => {
                    let &[outputs, inputs, kh, kw] = tensor.shape() else {
                        panic!(
                            "a convolution's weight is [out, in, kh, kw], shape is {:?}",
                            tensor.shape()
                        );
                    };
                    self.cast(&Arc::new(self.transpose(&wide, outputs, inputs, kh * kw)), self.dtype)
                }
            }
        })
    }

    /// Blocks for a loop over `n` elements by 256 threads each.
    pub(super) fn blocks(&self, n: usize) -> usize {
        n.div_ceil(THREADS).min(self.backend().multiprocessors() * BLOCKS_EACH)
    }

    /// Into how many parts a sum over `rows` rows is cut, `others` blocks being there already.
    pub(super) fn splits(&self, rows: usize, others: usize) -> usize {
        let wanted = (self.backend().multiprocessors() * 2).div_ceil(others.max(1));
        wanted.clamp(1, rows.div_ceil(64).max(1))
    }

    /// Launches a kernel that loops over `n` elements.
    pub(super) fn each(&self, file: &'static str, name: &'static str, dtype: DType, n: usize, args: &[Arg]) {
        self.launch(file, name, dtype, [self.blocks(n), 1, 1], THREADS, args);
    }

    /// Launches a kernel; nothing if the grid is empty.
    pub(super) fn launch(
        &self,
        file: &'static str,
        name: &'static str,
        dtype: DType,
        grid: [usize; 3],
        threads: usize,
        args: &[Arg],
    ) {
        if grid.contains(&0) {
            return;
        }
        let [x, y, z] = grid;
        assert!(
            x < 1 << 31 && y < 1 << 16 && z < 1 << 16,
            "{name}: a grid of {grid:?} blocks is more than a GPU takes"
        );
        let mut args = args.to_vec();
        let mut pointers: Vec<*mut c_void> = args.iter_mut().map(|arg| (&raw mut arg.0).cast()).collect();
        let kernel = Kernel { file, name, dtype };
        // SAFETY: each launcher passes what its kernel's parameters say (the emulation test runs every one of them), and
        // keeps the arrays until this call returns; the pool hands them out again in the order of the stream only.
        unsafe {
            self.backend()
                .launch(kernel, grid.map(|n| n as u32), threads as u32, &mut pointers)
        }
        .unwrap_or_else(|error| fail(error));
    }
}
