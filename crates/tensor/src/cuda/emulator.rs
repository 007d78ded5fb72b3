//! The kernels on the CPU: the `.cu` files compiled by a C++ compiler with `emulate.h`. Only tests make one; it shows that
//! indices, reductions, barriers, launches and the dispatch of the ops are right, not that a GPU runs them.

use super::backend::{Backend, Capacity, ConvolutionSizes, Direction, Kernel, Product};
use super::error::DeviceError;
use crate::DType;
use std::alloc::Layout;
use std::ffi::c_void;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Bytes on both sides of an allocation, which no kernel may touch.
const GUARD_BYTES: usize = 256;
const GUARD: u8 = 0xA5;

/// `struct dim3` of emulate.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Dim3 {
    x: u32,
    y: u32,
    z: u32,
}

type Entry = unsafe extern "C" fn(grid: Dim3, block: Dim3, args: *mut *mut c_void) -> i32;

/// The threads of a block are fibres in static memory: one launch at a time in the whole process.
static LAUNCH: Mutex<()> = Mutex::new(());

/// A shared object of compiled kernels.
pub struct Emulator {
    library: libloading::Library,
    /// Bytes allocated.
    in_use: Mutex<usize>,
    /// Allocations beyond this are refused, as a GPU would.
    limit_bytes: usize,
}

impl Emulator {
    /// Opens what `g++ -shared` made of the kernels.
    pub fn open(library: &Path, limit_bytes: usize) -> Result<Self, DeviceError> {
        // SAFETY: the file is made of the kernels and emulate.h alone, which have no initialisers to speak of.
        let library = unsafe { libloading::Library::new(library) }.map_err(|e| DeviceError::call("dlopen", e))?;
        Ok(Self {
            library,
            in_use: Mutex::new(0),
            limit_bytes,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, usize> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layout(bytes: usize) -> Result<Layout, DeviceError> {
        Layout::from_size_align(bytes + 2 * GUARD_BYTES, GUARD_BYTES).map_err(|e| DeviceError::call("allocate", e))
    }
}

impl Backend for Emulator {
    fn multiprocessors(&self) -> usize {
        1
    }

    fn capacity(&self) -> Result<Capacity, DeviceError> {
        Ok(Capacity {
            free: self.limit_bytes.saturating_sub(*self.lock()),
            total: self.limit_bytes,
        })
    }

    fn allocate(&self, bytes: usize) -> Result<Option<u64>, DeviceError> {
        let mut in_use = self.lock();
        if *in_use + bytes > self.limit_bytes {
            return Ok(None);
        }
        *in_use += bytes;
        // SAFETY: the layout's size is not zero; the whole allocation is written.
        let start = unsafe {
            let start = std::alloc::alloc(Self::layout(bytes)?);
            std::ptr::write_bytes(start, GUARD, bytes + 2 * GUARD_BYTES);
            start.add(GUARD_BYTES)
        };
        Ok(Some(start as u64))
    }

    unsafe fn release(&self, address: u64, bytes: usize) {
        *self.lock() -= bytes;
        let start = (address as usize - GUARD_BYTES) as *mut u8;
        // SAFETY: this is the allocation that `allocate` made, of the same layout.
        unsafe {
            let all = std::slice::from_raw_parts(start, bytes + 2 * GUARD_BYTES);
            let clean = |part: &[u8]| part.iter().all(|byte| *byte == GUARD);
            let intact = clean(&all[..GUARD_BYTES]) && clean(&all[GUARD_BYTES + bytes..]);
            if let Ok(layout) = Self::layout(bytes) {
                std::alloc::dealloc(start, layout);
            }
            assert!(
                intact || std::thread::panicking(),
                "a kernel wrote outside of its memory"
            );
        }
    }

    unsafe fn hand_out(&self, address: u64, bytes: usize) {
        // SAFETY: the caller's memory. All ones are NaN in each type: what is read before it is written shows.
        unsafe { std::ptr::write_bytes(address as *mut u8, 0xFF, bytes) };
    }

    unsafe fn upload(&self, bytes: &[u8], address: u64) -> Result<(), DeviceError> {
        // SAFETY: the caller's memory, which no Rust reference covers.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        Ok(())
    }

    unsafe fn download(&self, address: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        // SAFETY: as in `upload`.
        unsafe { std::ptr::copy_nonoverlapping(address as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<(), DeviceError> {
        // SAFETY: the caller's memory.
        unsafe { std::ptr::write_bytes(address as *mut u8, 0, bytes) };
        Ok(())
    }

    unsafe fn launch(
        &self,
        kernel: Kernel,
        [x, y, z]: [u32; 3],
        threads: u32,
        args: &mut [*mut c_void],
    ) -> Result<(), DeviceError> {
        let symbol = kernel.symbol();
        let _one_at_a_time = LAUNCH.lock().unwrap_or_else(PoisonError::into_inner);
        let block = Dim3 { x: threads, y: 1, z: 1 };
        // SAFETY: emulate.h gives every kernel this signature; the arguments are the caller's promise.
        let stuck = unsafe {
            let entry: libloading::Symbol<Entry> = self
                .library
                .get(symbol.as_bytes())
                .map_err(|e| DeviceError::call(symbol.clone(), e))?;
            entry(Dim3 { x, y, z }, block, args.as_mut_ptr())
        };
        match stuck {
            0 => Ok(()),
            _ => Err(DeviceError::call(
                symbol,
                "some threads of a block never reach its barrier",
            )),
        }
    }

    unsafe fn product(&self, _: Product, _: u64, _: u64, _: u64) -> Result<bool, DeviceError> {
        Ok(false)
    }

    unsafe fn convolution(
        &self,
        _: Direction,
        _: &ConvolutionSizes,
        _: DType,
        _: u64,
        _: u64,
        _: u64,
        _: &mut dyn FnMut(usize) -> u64,
    ) -> Result<bool, DeviceError> {
        Ok(false)
    }
}
