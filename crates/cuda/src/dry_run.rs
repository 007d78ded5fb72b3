//! A device that does nothing but count: what it is asked to allocate says how much memory the same work takes on a GPU.

use crate::backend::{Backend, Capacity, KernelId};
use crate::error::CudaError;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};

/// Addresses are numbers, values that are read back are zeros. Memory has no end.
pub(crate) struct DryRun {
    multiprocessors: usize,
    next: AtomicU64,
}

impl DryRun {
    /// In place of a GPU with so many multiprocessors, which scratch memory depends on.
    pub fn new(multiprocessors: usize) -> Self {
        Self {
            multiprocessors,
            next: AtomicU64::new(1 << 12),
        }
    }
}

impl Backend for DryRun {
    fn multiprocessors(&self) -> usize {
        self.multiprocessors
    }

    fn capacity(&self) -> Result<Capacity, CudaError> {
        Ok(Capacity {
            free: usize::MAX,
            total: usize::MAX,
        })
    }

    fn allocate(&self, bytes: usize) -> Result<Option<u64>, CudaError> {
        Ok(Some(self.next.fetch_add(bytes as u64, Ordering::Relaxed)))
    }

    unsafe fn release(&self, _: u64, _: usize) {}

    unsafe fn upload(&self, _: &[u8], _: u64) -> Result<(), CudaError> {
        Ok(())
    }

    unsafe fn download(&self, _: u64, bytes: &mut [u8]) -> Result<(), CudaError> {
        bytes.fill(0);
        Ok(())
    }

    unsafe fn zero(&self, _: u64, _: usize) -> Result<(), CudaError> {
        Ok(())
    }

    unsafe fn copy(&self, _: u64, _: u64, _: usize) -> Result<(), CudaError> {
        Ok(())
    }

    fn synchronize(&self) -> Result<(), CudaError> {
        Ok(())
    }

    fn begin_recording(&self) -> Result<bool, CudaError> {
        Ok(false)
    }

    fn end_recording(&self) -> Result<u64, CudaError> {
        Ok(0)
    }

    unsafe fn replay(&self, _: u64) -> Result<(), CudaError> {
        Ok(())
    }

    fn forget(&self, _: u64) {}

    unsafe fn launch(&self, _: KernelId, _: [u32; 3], _: u32, _: &mut [*mut c_void]) -> Result<(), CudaError> {
        Ok(())
    }
}
