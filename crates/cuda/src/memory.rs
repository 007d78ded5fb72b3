//! Device memory: a caching allocator, and the arrays that tensors on a device hold.

use crate::backend::Backend;
use prima_tensor::device::fail;
use prima_tensor::gpu::{DeviceArray, Usage};
use prima_tensor::{DType, DeviceError, Tensor};
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::ThreadId;

/// Freed pieces by size.
type Kept = HashMap<usize, Vec<u64>>;

/// Freed memory is kept for the next array of the same size: asking the driver each time would wait for the device. All work is
/// in one stream, so memory may be handed out again as soon as its last user was launched.
pub(crate) struct Pool {
    backend: Box<dyn Backend>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: Kept,
    usage: Usage,
    /// The thread whose work is being recorded: what it allocates belongs to the recording.
    recording: Option<(ThreadId, Arc<Reserve>)>,
    /// Gives back memory that can be done without, when there is no other.
    spare: Option<Spare>,
}

type Spare = Arc<dyn Fn() + Send + Sync>;

/// Sizes are rounded up, so that few different ones are kept.
fn rounded(bytes: usize) -> usize {
    let step = if bytes >= 1 << 20 { 1 << 20 } else { 512 };
    bytes.max(1).next_multiple_of(step)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    pub fn new(backend: Box<dyn Backend>) -> Arc<Self> {
        Arc::new(Self {
            backend,
            state: Mutex::default(),
        })
    }

    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    pub fn allocate(self: &Arc<Self>, bytes: usize) -> Result<Memory, DeviceError> {
        let bytes = rounded(bytes);
        let reserve = self.recording();
        let address = match reserve.as_ref().and_then(|reserve| reserve.reuse(bytes)) {
            Some(address) => address,
            None => self.piece(bytes)?,
        };
        // SAFETY: the memory was just taken from the pool or the device, and is this caller's.
        unsafe { self.backend.hand_out(address, bytes) };
        Ok(Memory {
            home: reserve.map_or_else(|| Home::Pool(self.clone()), Home::Recording),
            address,
            bytes,
        })
    }

    /// A piece that was kept, or one from the device.
    fn piece(&self, bytes: usize) -> Result<u64, DeviceError> {
        let kept = lock(&self.state).kept.get_mut(&bytes).and_then(Vec::pop);
        let address = match kept {
            Some(address) => address,
            None => self.fresh(bytes)?,
        };
        let usage = &mut lock(&self.state).usage;
        usage.in_use += bytes;
        usage.peak = usage.peak.max(usage.in_use);
        Ok(address)
    }

    /// From the device; where it has no room, after giving back what is kept, and then what can be done without.
    fn fresh(&self, bytes: usize) -> Result<u64, DeviceError> {
        for attempt in 0..3 {
            match attempt {
                0 => {}
                1 => self.give_back(),
                _ => {
                    let spare = lock(&self.state).spare.clone();
                    let Some(spare) = spare else { break };
                    spare();
                    self.give_back();
                }
            }
            if let Some(address) = self.backend.allocate(bytes)? {
                let usage = &mut lock(&self.state).usage;
                usage.reserved += bytes;
                usage.most_reserved = usage.most_reserved.max(usage.reserved);
                return Ok(address);
            }
        }
        let capacity = self.backend.capacity()?;
        let mib = |bytes: usize| bytes.div_ceil(1 << 20);
        Err(DeviceError::OutOfMemory {
            wanted_mib: mib(bytes),
            free_mib: capacity.free >> 20,
            total_mib: mib(capacity.total),
        })
    }

    /// Gives kept memory back to the device.
    pub fn give_back(&self) {
        let kept = {
            let mut state = lock(&self.state);
            let kept = std::mem::take(&mut state.kept);
            let bytes: usize = kept.iter().map(|(bytes, pieces)| bytes * pieces.len()).sum();
            state.usage.reserved -= bytes;
            kept
        };
        for (bytes, addresses) in kept {
            for address in addresses {
                // SAFETY: kept memory came from the device with this size, and nobody has it.
                unsafe { self.backend.release(address, bytes) };
            }
        }
    }

    /// What to call when memory is short and all that is kept was given back.
    pub fn when_short(&self, spare: Spare) {
        lock(&self.state).spare = Some(spare);
    }

    pub fn usage(&self) -> Usage {
        lock(&self.state).usage
    }

    /// Starts counting anew: peaks from what is in use now, copies from none.
    pub fn reset_usage(&self) {
        let usage = &mut lock(&self.state).usage;
        *usage = Usage {
            in_use: usage.in_use,
            peak: usage.in_use,
            reserved: usage.reserved,
            most_reserved: usage.reserved,
            ..Usage::default()
        };
    }

    /// Bytes to a place on the device.
    ///
    /// # Safety
    /// As many bytes at `address` belong to the caller.
    pub unsafe fn upload(&self, bytes: &[u8], address: u64) -> Result<(), DeviceError> {
        self.not_while_recording("a copy to the device")?;
        {
            let usage = &mut lock(&self.state).usage;
            usage.uploads += 1;
            usage.uploaded += bytes.len();
        }
        // SAFETY: the caller's promise.
        unsafe { self.backend.upload(bytes, address) }?;
        Ok(())
    }

    /// Bytes from the device, once all work before is done.
    ///
    /// # Safety
    /// As many bytes at `address` belong to the caller.
    pub unsafe fn download(&self, address: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.not_while_recording("a copy from the device")?;
        {
            let usage = &mut lock(&self.state).usage;
            usage.downloads += 1;
            usage.downloaded += bytes.len();
        }
        // SAFETY: the caller's promise.
        unsafe { self.backend.download(address, bytes) }?;
        Ok(())
    }

    /// A recording has no values yet, and would go on reading the host's memory after the caller is done with it.
    pub fn not_while_recording(&self, what: &'static str) -> Result<(), DeviceError> {
        match self.recording() {
            Some(_) => Err(DeviceError::NotRecordable { what }),
            None => Ok(()),
        }
    }

    /// The recording that this thread is in.
    pub fn recording(&self) -> Option<Arc<Reserve>> {
        let state = lock(&self.state);
        let (thread, reserve) = state.recording.as_ref()?;
        (*thread == std::thread::current().id()).then(|| reserve.clone())
    }

    /// What this thread allocates from now on belongs to the recording; `None` if there is one already.
    pub fn begin_recording(self: &Arc<Self>) -> Option<Arc<Reserve>> {
        let mut state = lock(&self.state);
        if state.recording.is_some() {
            return None;
        }
        let reserve = Arc::new(Reserve {
            pool: self.clone(),
            free: Mutex::default(),
            weights: Mutex::default(),
        });
        state.recording = Some((std::thread::current().id(), reserve.clone()));
        Some(reserve)
    }

    pub fn end_recording(&self) {
        let ended = lock(&self.state).recording.take();
        // Its memory comes back to this pool, whose lock has to be free.
        drop(ended);
    }

    fn keep(&self, bytes: usize, address: u64) {
        let mut state = lock(&self.state);
        state.usage.in_use -= bytes;
        state.kept.entry(bytes).or_default().push(address);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// The memory of a recording: work that is replayed finds its arrays where they were, so nobody else may have them meanwhile.
pub(crate) struct Reserve {
    pool: Arc<Pool>,
    free: Mutex<Kept>,
    /// The parameters that the recorded work reads.
    weights: Mutex<Vec<Weak<Array>>>,
}

impl Reserve {
    fn reuse(&self, bytes: usize) -> Option<u64> {
        lock(&self.free).get_mut(&bytes).and_then(Vec::pop)
    }

    pub fn reads(&self, weight: &Arc<Array>) {
        lock(&self.weights).push(Arc::downgrade(weight));
    }

    /// All parameters that the recorded work reads; `None` once one of them was replaced.
    pub fn weights(&self) -> Option<Vec<Arc<Array>>> {
        lock(&self.weights).iter().map(Weak::upgrade).collect()
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        for (bytes, addresses) in lock(&self.free).drain() {
            for address in addresses {
                self.pool.keep(bytes, address);
            }
        }
    }
}

/// Where a piece goes when its owner is done.
enum Home {
    Pool(Arc<Pool>),
    Recording(Arc<Reserve>),
}

/// A piece of device memory with one owner.
pub(crate) struct Memory {
    home: Home,
    pub address: u64,
    bytes: usize,
}

impl Memory {
    fn pool(&self) -> &Arc<Pool> {
        match &self.home {
            Home::Pool(pool) => pool,
            Home::Recording(reserve) => &reserve.pool,
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match &self.home {
            Home::Pool(pool) => pool.keep(self.bytes, self.address),
            Home::Recording(reserve) => lock(&reserve.free).entry(self.bytes).or_default().push(self.address),
        }
    }
}

/// Values on a device.
pub(crate) struct Array {
    memory: Memory,
    dtype: DType,
    len: usize,
    /// The values once they were read back, in f32.
    host: OnceLock<Vec<f32>>,
}

impl Array {
    /// Not yet written.
    pub(crate) fn new(pool: &Arc<Pool>, len: usize, dtype: DType) -> Self {
        let memory = pool.allocate(len * dtype.size()).unwrap_or_else(|error| fail(error));
        Self {
            memory,
            dtype,
            len,
            host: OnceLock::new(),
        }
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn address(&self) -> u64 {
        self.memory.address
    }

    /// Whether the array lies on the device of `pool`.
    pub(crate) fn is_in(&self, pool: &Arc<Pool>) -> bool {
        Arc::ptr_eq(self.memory.pool(), pool)
    }

    fn read(&self) -> Vec<f32> {
        if self.dtype == DType::F32 {
            let mut values = vec![0.0f32; self.len];
            self.read_bytes(bytemuck::cast_slice_mut(&mut values));
            return values;
        }
        let mut narrow = vec![half::bf16::ZERO; self.len];
        self.read_bytes(bytemuck::cast_slice_mut(&mut narrow));
        narrow.iter().map(|value| value.to_f32()).collect()
    }

    /// The first bytes as they lie there.
    pub(crate) fn read_bytes(&self, bytes: &mut [u8]) {
        assert!(bytes.len() <= self.memory.bytes, "an array of fewer bytes");
        // SAFETY: the array has this many bytes.
        unsafe { self.memory.pool().download(self.address(), bytes) }.unwrap_or_else(|error| fail(error));
    }
}

impl DeviceArray for Array {
    fn len(&self) -> usize {
        self.len
    }

    fn host(&self) -> &[f32] {
        self.host.get_or_init(|| self.read())
    }

    fn into_host(self: Arc<Self>) -> Vec<f32> {
        match Arc::try_unwrap(self) {
            Err(shared) => shared.host().to_vec(),
            Ok(mut array) => array.host.take().unwrap_or_else(|| array.read()),
        }
    }
}

/// A tensor of values that nobody else has yet.
pub(crate) fn tensor(array: Array, shape: &[usize]) -> Tensor {
    Tensor::from_array(Arc::new(array), shape)
}

/// The tensor's array, if it lies on a device of this crate.
pub(crate) fn array_of(tensor: &Tensor) -> Option<Arc<Array>> {
    let array: Arc<dyn Any + Send + Sync> = tensor.array()?.clone();
    array.downcast().ok()
}
