//! A device at work: where arrays are made, moved and handed to kernels. The ops' launchers are in the files named as the ops'.

use crate::backend::{Backend, KernelId};
use crate::dry_run::DryRun;
use crate::group::Group;
use crate::memory::{Array, Pool, array_of};
use crate::nccl;
use crate::recording::Recordings;
use prima_tensor::device::fail;
use prima_tensor::gpu::{DeviceArray, Form, Gpu, GroupId, Peers, RecordingCounts, Stored, Usage, Work};
use prima_tensor::{DType, Device, DeviceError, Param, Tensor};
use std::any::Any;
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Threads of a block, where the kernel does not say otherwise.
pub(crate) const THREADS: usize = 256;
/// Blocks a multiprocessor is given in loops over all elements: enough to hide memory's latency.
const BLOCKS_EACH: usize = 16;

pub(crate) struct CudaGpu {
    pool: Arc<Pool>,
    /// How activations are stored.
    dtype: DType,
    /// Whether products of f32 values may round them to TF32.
    tf32: bool,
    recordings: Arc<Recordings>,
    /// Tells devices apart, for what parameters keep by device.
    id: u64,
}

/// A kernel's parameter: an address, or a number in as many low bytes as the kernel reads.
#[derive(Clone, Copy)]
pub(crate) struct Arg(u64);

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
    ($($arg:expr),* $(,)?) => { &[$($crate::gpu::Arg::from($arg)),*] };
}
pub(crate) use args;

impl CudaGpu {
    pub fn new(backend: Box<dyn Backend>, dtype: DType, tf32: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let pool = Pool::new(backend);
        let recordings = Arc::new(Recordings::default());
        let spare = Arc::downgrade(&recordings);
        pool.when_short(Arc::new(move || {
            if let Some(recordings) = spare.upgrade() {
                recordings.clear();
            }
        }));
        Self {
            pool,
            dtype,
            tf32,
            recordings,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        self.pool.backend()
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(crate) fn recordings(&self) -> &Recordings {
        &self.recordings
    }

    pub(crate) fn tf32(&self) -> bool {
        self.tf32 && self.dtype == DType::F32
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn empty(&self, len: usize, dtype: DType) -> Array {
        Array::new(&self.pool, len, dtype)
    }

    pub(crate) fn zeros(&self, len: usize, dtype: DType) -> Array {
        let array = self.empty(len, dtype);
        // SAFETY: the array has this many bytes, and is not shared yet.
        unsafe { self.backend().zero(array.address(), len * dtype.size()) }.unwrap_or_else(|error| fail(error));
        array
    }

    /// Any plain values, as they are.
    pub(crate) fn upload<V: bytemuck::Pod>(&self, values: &[V]) -> Array {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let array = self.empty(bytes.len().div_ceil(4), DType::F32);
        // SAFETY: the array has at least this many bytes, and is not shared yet.
        unsafe { self.pool.upload(bytes, array.address()) }.unwrap_or_else(|error| fail(error));
        array
    }

    /// Where the tensor's values lie, if that is on this device.
    pub(crate) fn own_array(&self, tensor: &Tensor) -> Option<Arc<Array>> {
        array_of(tensor).filter(|array| array.is_in(&self.pool))
    }

    /// The tensor's values on this device, stored as `dtype`; without a copy if they are.
    pub(crate) fn array(&self, tensor: &Tensor, dtype: DType) -> Arc<Array> {
        match self.own_array(tensor) {
            Some(array) => self.cast(&array, dtype),
            None => self.cast(&Arc::new(self.upload(tensor.data())), dtype),
        }
    }

    pub(crate) fn cast(&self, array: &Arc<Array>, dtype: DType) -> Arc<Array> {
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
    pub(crate) fn common_dtype(&self, tensors: &[&Tensor]) -> DType {
        let narrow = |tensor: &&Tensor| array_of(tensor).is_some_and(|array| array.dtype() != DType::F32);
        if tensors.iter().any(narrow) {
            self.dtype
        } else {
            DType::F32
        }
    }

    /// The tensor as activations are stored.
    pub(crate) fn stored(&self, tensor: &Tensor) -> Arc<Array> {
        self.array(tensor, self.dtype)
    }

    /// The parameter in `form`; moved and changed once per value.
    pub(crate) fn param(&self, param: &Param, form: Form) -> Arc<Array> {
        let recording = self.pool.recording();
        let array = param.on_device(self.id, form, |value, shape| -> Arc<dyn DeviceArray> {
            // What a recording makes is not there before its replay.
            self.pool
                .not_while_recording("moving a parameter to the device")
                .unwrap_or_else(|error| fail(error));
            let moved = self.moved(value);
            match form {
                Form::Wide => self.cast(&moved, DType::F32),
                Form::Stored => self.cast(&moved, self.dtype),
                Form::ChannelsLast => {
                    let &[outputs, inputs, kh, kw] = shape else {
                        panic!("a convolution's weight is [out, in, kh, kw], shape is {shape:?}");
                    };
                    self.cast(&Arc::new(self.transpose(&moved, outputs, inputs, kh * kw)), self.dtype)
                }
            }
        });
        let array: Arc<dyn Any + Send + Sync> = array;
        let array = array
            .downcast()
            .unwrap_or_else(|_| panic!("devices' numbers are this crate's"));
        if let Some(recording) = recording {
            recording.reads(&array);
        }
        array
    }

    /// A parameter's value as it is kept, without a detour over f32 where it is kept in bf16.
    fn moved(&self, value: Stored) -> Arc<Array> {
        match value {
            Stored::Wide(tensor) => self.array(tensor, DType::F32),
            Stored::Narrow(values) if self.dtype == DType::BF16 => {
                let array = self.empty(values.len(), DType::BF16);
                // SAFETY: the array has this many bytes, and is not shared yet.
                unsafe { self.pool.upload(bytemuck::cast_slice(values), array.address()) }
                    .unwrap_or_else(|error| fail(error));
                Arc::new(array)
            }
            Stored::Narrow(values) => {
                let wide: Vec<f32> = values.iter().map(|value| value.to_f32()).collect();
                Arc::new(self.upload(&wide))
            }
            // Only where nothing is computed.
            Stored::Absent(len, dtype) => {
                Arc::new(self.empty(len, if dtype == self.dtype { dtype } else { DType::F32 }))
            }
        }
    }

    /// Blocks for a loop over `n` elements by 256 threads each.
    pub(crate) fn blocks(&self, n: usize) -> usize {
        n.div_ceil(THREADS).min(self.backend().multiprocessors() * BLOCKS_EACH)
    }

    /// Into how many parts a sum over `rows` rows is cut, `others` blocks being there already.
    pub(crate) fn splits(&self, rows: usize, others: usize) -> usize {
        let wanted = (self.backend().multiprocessors() * 2).div_ceil(others.max(1));
        wanted.clamp(1, rows.div_ceil(64).max(1))
    }

    /// Launches a kernel that loops over `n` elements.
    pub(crate) fn each(&self, file: &'static str, name: &'static str, dtype: DType, n: usize, args: &[Arg]) {
        self.launch(file, name, dtype, [self.blocks(n), 1, 1], THREADS, args);
    }

    /// Launches a kernel; nothing if the grid is empty.
    pub(crate) fn launch(
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
        let kernel = KernelId { file, name, dtype };
        // SAFETY: each launcher passes what its kernel's parameters say (the emulation test runs every one of them), and
        // keeps the arrays until this call returns; the pool hands them out again in the order of the stream only.
        unsafe {
            self.backend()
                .launch(kernel, grid.map(|n| n as u32), threads as u32, &mut pointers)
        }
        .unwrap_or_else(|error| fail(error));
    }
}

impl Gpu for CudaGpu {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn copy(&self, tensor: &Tensor) -> Tensor {
        Tensor::from_array(self.array(tensor, self.common_dtype(&[tensor])), tensor.shape())
    }

    fn synchronize(&self) {
        self.backend().synchronize().unwrap_or_else(|error| fail(error));
    }

    fn usage(&self) -> Usage {
        self.pool.usage()
    }

    fn reset_usage(&self) {
        self.pool.give_back();
        self.pool.reset_usage();
    }

    fn memory(&self) -> Result<(usize, usize), DeviceError> {
        let capacity = self.backend().capacity()?;
        Ok((capacity.free, capacity.total))
    }

    fn dry_run(&self, dtype: DType) -> Device {
        crate::device(DryRun::new(self.backend().multiprocessors()), dtype, false)
    }

    fn repeat(&self, owner: &Arc<()>, inputs: &[&Tensor], work: Work) -> Option<Tensor> {
        self.replay_or_record(owner, inputs, work)
    }

    fn forget_recordings(&self) {
        self.recordings.clear();
    }

    fn recording_counts(&self) -> RecordingCounts {
        self.recordings.counts()
    }

    fn new_group(&self) -> Result<GroupId, DeviceError> {
        Ok(nccl::new_id()?)
    }

    fn join_group(self: Arc<Self>, id: GroupId, rank: usize, world: usize) -> Result<Box<dyn Peers>, DeviceError> {
        let communicator = self.backend().join(id, rank, world)?;
        Ok(Box::new(Group::new(self, communicator)))
    }
}
