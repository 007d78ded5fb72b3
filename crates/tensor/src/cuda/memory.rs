//! Device memory: a caching allocator, and the arrays that tensors on a device hold.

use super::backend::Backend;
use super::error::{DeviceError, fail};
use crate::DType;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Freed memory is kept for the next array of the same size: asking the driver each time would wait for the device. All work is
/// in one stream, so memory may be handed out again as soon as its last user was launched.
pub(super) struct Pool {
    backend: Box<dyn Backend>,
    free: Mutex<HashMap<usize, Vec<u64>>>,
}

/// Sizes are rounded up, so that few different ones are kept.
fn rounded(bytes: usize) -> usize {
    let step = if bytes >= 1 << 20 { 1 << 20 } else { 512 };
    bytes.max(1).next_multiple_of(step)
}

impl Pool {
    pub fn new(backend: Box<dyn Backend>) -> Arc<Self> {
        Arc::new(Self {
            backend,
            free: Mutex::default(),
        })
    }

    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    pub fn allocate(self: &Arc<Self>, bytes: usize) -> Result<Memory, DeviceError> {
        let bytes = rounded(bytes);
        let kept = self.lock().get_mut(&bytes).and_then(Vec::pop);
        let address = match kept {
            Some(address) => address,
            None => self.fresh(bytes)?,
        };
        // SAFETY: the memory was just taken from the pool or the device, and is this caller's.
        unsafe { self.backend.hand_out(address, bytes) };
        Ok(Memory {
            pool: self.clone(),
            address,
            bytes,
        })
    }

    /// From the device; where it has no room, after giving back what is kept.
    fn fresh(&self, bytes: usize) -> Result<u64, DeviceError> {
        if let Some(address) = self.backend.allocate(bytes)? {
            return Ok(address);
        }
        self.give_back();
        if let Some(address) = self.backend.allocate(bytes)? {
            return Ok(address);
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
        for (bytes, addresses) in self.lock().drain() {
            for address in addresses {
                // SAFETY: kept memory came from the device with this size, and nobody has it.
                unsafe { self.backend.release(address, bytes) };
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<usize, Vec<u64>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// A piece of device memory with one owner.
pub(super) struct Memory {
    pool: Arc<Pool>,
    pub address: u64,
    bytes: usize,
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.pool.lock().entry(self.bytes).or_default().push(self.address);
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
    pub(super) fn new(pool: &Arc<Pool>, len: usize, dtype: DType) -> Self {
        let memory = pool.allocate(len * dtype.size()).unwrap_or_else(|error| fail(error));
        Self {
            memory,
            dtype,
            len,
            host: OnceLock::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub(super) fn address(&self) -> u64 {
        self.memory.address
    }

    /// Whether the array lies on the device of `pool`.
    pub(super) fn is_in(&self, pool: &Arc<Pool>) -> bool {
        Arc::ptr_eq(&self.memory.pool, pool)
    }

    /// The values in f32: waits for the device the first time.
    pub fn host(&self) -> &[f32] {
        self.host.get_or_init(|| self.read())
    }

    /// [`host`](Self::host) without a copy if the values were read before.
    pub fn into_host(self) -> Vec<f32> {
        let known = self.host.get().is_some();
        if known {
            self.host.into_inner().unwrap_or_default()
        } else {
            self.read()
        }
    }

    fn read(&self) -> Vec<f32> {
        let backend = self.memory.pool.backend();
        let download = |bytes: &mut [u8]| {
            // SAFETY: the array has this many bytes.
            unsafe { backend.download(self.address(), bytes) }.unwrap_or_else(|error| fail(error));
        };
        if self.dtype == DType::F32 {
            let mut values = vec![0.0f32; self.len];
            download(bytemuck::cast_slice_mut(&mut values));
            return values;
        }
        let mut narrow = vec![half::bf16::ZERO; self.len];
        download(bytemuck::cast_slice_mut(&mut narrow));
        narrow.iter().map(|value| value.to_f32()).collect()
    }
}
