//! A device whose memory is the host's, and whose kernels are functions of a shared library.

use prima_cuda::{Backend, Capacity, CudaError, Direction, KernelId, Product};
use prima_tensor::DType;
use std::alloc::Layout;
use std::collections::HashMap;
use std::ffi::c_void;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

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
    /// Whether forward products are done by a stand-in for NVIDIA's library, which has fused epilogues.
    library_products: bool,
    /// What the thread that records asked for.
    noting: Mutex<Option<(ThreadId, Vec<Command>)>>,
    recordings: Mutex<Recordings>,
}

#[derive(Default)]
struct Recordings {
    made: u64,
    kept: HashMap<u64, Vec<Command>>,
}

/// Work, with all that it takes to do it again.
#[derive(Clone)]
enum Command {
    /// Memory that is handed out.
    Spoil {
        address: u64,
        bytes: usize,
    },
    Zero {
        address: u64,
        bytes: usize,
    },
    Copy {
        from: u64,
        to: u64,
        bytes: usize,
    },
    Launch {
        kernel: KernelId,
        grid: [u32; 3],
        threads: u32,
        args: Vec<u64>,
    },
    Product {
        product: Product,
        places: [u64; 5],
    },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Emulator {
    /// Opens what `g++ -shared` made of the kernels.
    pub fn open(library: &Path, limit_bytes: usize) -> Self {
        // SAFETY: the file is made of the kernels and emulate.h alone, which have no initialisers to speak of.
        let library = unsafe { libloading::Library::new(library) }.expect("what was just linked can be opened");
        Self {
            library,
            in_use: Mutex::new(0),
            limit_bytes,
            library_products: false,
            noting: Mutex::default(),
            recordings: Mutex::default(),
        }
    }

    /// As if NVIDIA's library of products were there.
    #[must_use]
    pub fn with_library_products(mut self) -> Self {
        self.library_products = true;
        self
    }

    /// Notes the command if this thread is recording, else does it.
    fn ask(&self, command: Command) -> Result<(), CudaError> {
        if let Some((thread, commands)) = &mut *lock(&self.noting)
            && *thread == std::thread::current().id()
        {
            commands.push(command);
            return Ok(());
        }
        self.perform(&command)
    }

    fn perform(&self, command: &Command) -> Result<(), CudaError> {
        match *command {
            // SAFETY: the memory belongs to whoever asked for this. All ones are NaN in each type: what is read before it is
            // written shows.
            Command::Spoil { address, bytes } => unsafe { std::ptr::write_bytes(address as *mut u8, 0xFF, bytes) },
            // SAFETY: as above.
            Command::Zero { address, bytes } => unsafe { std::ptr::write_bytes(address as *mut u8, 0, bytes) },
            // SAFETY: as above.
            Command::Copy { from, to, bytes } => unsafe {
                std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes);
            },
            Command::Launch {
                kernel,
                grid,
                threads,
                ref args,
            } => return self.run(kernel, grid, threads, args),
            Command::Product { product, places } => multiply(&product, places),
        }
        Ok(())
    }

    fn run(&self, kernel: KernelId, [x, y, z]: [u32; 3], threads: u32, args: &[u64]) -> Result<(), CudaError> {
        let symbol = kernel.symbol();
        let _one_at_a_time = lock(&LAUNCH);
        let block = Dim3 { x: threads, y: 1, z: 1 };
        let mut args = args.to_vec();
        let mut pointers: Vec<*mut c_void> = args.iter_mut().map(|arg| (&raw mut *arg).cast()).collect();
        // SAFETY: emulate.h gives every kernel this signature; the arguments are the promise of whoever launched it.
        let stuck = unsafe {
            let entry: libloading::Symbol<Entry> = self
                .library
                .get(symbol.as_bytes())
                .map_err(|e| CudaError::call(symbol.clone(), e))?;
            entry(Dim3 { x, y, z }, block, pointers.as_mut_ptr())
        };
        match stuck {
            0 => Ok(()),
            _ => Err(CudaError::call(
                symbol,
                "some threads of a block never reach its barrier",
            )),
        }
    }

    fn layout(bytes: usize) -> Result<Layout, CudaError> {
        Layout::from_size_align(bytes + 2 * GUARD_BYTES, GUARD_BYTES).map_err(|e| CudaError::call("allocate", e))
    }
}

impl Backend for Emulator {
    fn multiprocessors(&self) -> usize {
        1
    }

    fn capacity(&self) -> Result<Capacity, CudaError> {
        Ok(Capacity {
            free: self.limit_bytes.saturating_sub(*lock(&self.in_use)),
            total: self.limit_bytes,
        })
    }

    fn allocate(&self, bytes: usize) -> Result<Option<u64>, CudaError> {
        let mut in_use = lock(&self.in_use);
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
        *lock(&self.in_use) -= bytes;
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
        // Nothing to report: writing over memory does not fail.
        let _ = self.ask(Command::Spoil { address, bytes });
    }

    unsafe fn upload(&self, bytes: &[u8], address: u64) -> Result<(), CudaError> {
        // SAFETY: the caller's memory, which no Rust reference covers.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        Ok(())
    }

    unsafe fn download(&self, address: u64, bytes: &mut [u8]) -> Result<(), CudaError> {
        // SAFETY: as in `upload`.
        unsafe { std::ptr::copy_nonoverlapping(address as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<(), CudaError> {
        self.ask(Command::Zero { address, bytes })
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), CudaError> {
        self.ask(Command::Copy { from, to, bytes })
    }

    fn synchronize(&self) -> Result<(), CudaError> {
        Ok(())
    }

    fn begin_recording(&self) -> Result<bool, CudaError> {
        let mut noting = lock(&self.noting);
        if noting.is_some() {
            return Ok(false);
        }
        *noting = Some((std::thread::current().id(), Vec::new()));
        Ok(true)
    }

    fn end_recording(&self) -> Result<u64, CudaError> {
        let (_, commands) = lock(&self.noting)
            .take()
            .unwrap_or((std::thread::current().id(), Vec::new()));
        let mut recordings = lock(&self.recordings);
        recordings.made += 1;
        let number = recordings.made;
        recordings.kept.insert(number, commands);
        Ok(number)
    }

    unsafe fn replay(&self, recording: u64) -> Result<(), CudaError> {
        let commands = lock(&self.recordings).kept.get(&recording).cloned();
        let commands = commands.ok_or_else(|| CudaError::call("replay", "no such recording"))?;
        commands.iter().try_for_each(|command| self.perform(command))
    }

    fn forget(&self, recording: u64) {
        lock(&self.recordings).kept.remove(&recording);
    }

    unsafe fn launch(
        &self,
        kernel: KernelId,
        grid: [u32; 3],
        threads: u32,
        args: &mut [*mut c_void],
    ) -> Result<(), CudaError> {
        // SAFETY: each argument lies in eight bytes: the caller's promise.
        let args = args.iter().map(|arg| unsafe { arg.cast::<u64>().read() }).collect();
        self.ask(Command::Launch {
            kernel,
            grid,
            threads,
            args,
        })
    }

    unsafe fn product(
        &self,
        product: &Product,
        a: u64,
        b: u64,
        out: u64,
        [bias, residual]: [u64; 2],
    ) -> Result<bool, CudaError> {
        if !self.library_products || product.direction != Direction::Forward {
            return Ok(false);
        }
        let (product, places) = (*product, [a, b, out, bias, residual]);
        self.ask(Command::Product { product, places })?;
        Ok(true)
    }
}

/// `out = relu(a · bᵀ + bias + residual)`, as cuBLASLt's epilogues compute it: in f32, rounded once.
fn multiply(product: &Product, [a, b, out, bias, residual]: [u64; 5]) {
    let Product {
        m, n, k, dtype, then, ..
    } = *product;
    let read = |place: u64, i: usize| {
        // SAFETY: the places have the sizes of the product: the promise of whoever asked for it.
        unsafe {
            match dtype {
                DType::F32 => (place as *const f32).add(i).read(),
                _ => (place as *const half::bf16).add(i).read().to_f32(),
            }
        }
    };
    for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
        let mut sum: f32 = (0..k).map(|i| read(a, row * k + i) * read(b, column * k + i)).sum();
        if then.residual {
            sum += read(residual, row * n + column);
        }
        if then.bias {
            sum += read(bias, column);
        }
        if then.relu {
            sum = sum.max(0.0);
        }
        // SAFETY: as above.
        unsafe {
            match dtype {
                DType::F32 => (out as *mut f32).add(row * n + column).write(sum),
                _ => (out as *mut half::bf16)
                    .add(row * n + column)
                    .write(half::bf16::from_f32(sum)),
            }
        }
    }
}
