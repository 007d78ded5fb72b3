//! A GPU through NVIDIA's driver: one context, one stream, so that work happens in the order in which it is asked for.

use crate::backend::{Backend, Capacity, Direction, KernelId, Product};
use crate::compiler::Compiler;
use crate::cublaslt::CublasLt;
use crate::cudnn::Cudnn;
use crate::error::{CudaError, failed};
use crate::libraries::{Library, open};
use crate::nccl::Communicator;
use cudarc::driver::{DriverError, result, sys};
use prima_tensor::gpu::GroupId;
use prima_tensor::ops::ConvolutionSizes;
use prima_tensor::{DType, DeviceError};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

/// What libraries of CUDA 13 need of the driver, as cuDriverGetVersion says it.
const NEEDED_DRIVER: i32 = 13000;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn version_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// Starts the driver. How many GPUs there are, and the CUDA version of the driver.
pub(crate) fn start() -> Result<(usize, i32), CudaError> {
    open(Library::Driver).ok_or(CudaError::NoDriver)?;
    // SAFETY: only asks whether the library can be opened.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::NoDriver);
    }
    match result::init() {
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => return Err(CudaError::NoGpu),
        other => other.map_err(failed("cuInit"))?,
    }
    let mut version = 0;
    // SAFETY: the pointer is valid for the call.
    let got = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    got.result().map_err(failed("cuDriverGetVersion"))?;
    if version < NEEDED_DRIVER {
        return Err(CudaError::DriverTooOld {
            found: version_text(version),
            needed: version_text(NEEDED_DRIVER),
        });
    }
    let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?;
    if count == 0 {
        return Err(CudaError::NoGpu);
    }
    Ok((count as usize, version))
}

/// A number that the driver knows of a GPU.
pub(crate) fn attribute(device: sys::CUdevice, which: sys::CUdevice_attribute) -> Result<i32, CudaError> {
    // SAFETY: the device came from the driver.
    unsafe { result::device::get_attribute(device, which) }.map_err(failed("cuDeviceGetAttribute"))
}

/// Major and minor number.
pub(crate) fn compute_capability(device: sys::CUdevice) -> Result<(i32, i32), CudaError> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
    };
    Ok((
        attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    ))
}

pub(crate) struct Driver {
    context: sys::CUcontext,
    /// All work, in the order in which it is asked for.
    stream: sys::CUstream,
    /// Where the work of a thread that records goes; nothing is ever done there.
    notes: sys::CUstream,
    recording: Mutex<Option<ThreadId>>,
    graphs: Mutex<HashMap<u64, sys::CUgraphExec>>,
    next_graph: AtomicU64,
    multiprocessors: usize,
    /// Such as `sm_90`.
    arch: String,
    compiler: Compiler,
    modules: Mutex<HashMap<(&'static str, DType), sys::CUmodule>>,
    functions: Mutex<HashMap<KernelId, sys::CUfunction>>,
    products: Option<CublasLt>,
    convolutions: Option<Cudnn>,
}

// SAFETY: the driver's handles may be used from any thread once the context is current there, which every method sees to;
// tables are behind locks, and so are the libraries' handles.
unsafe impl Send for Driver {}
// SAFETY: as above.
unsafe impl Sync for Driver {}

impl Driver {
    /// GPU `index`, with whatever libraries there are. NVRTC has to be.
    pub fn open(index: usize) -> Result<Self, DeviceError> {
        let (count, _) = start()?;
        if index >= count {
            return Err(DeviceError::NoSuchGpu { index, count });
        }
        let compiler = Compiler::new(Compiler::default_cache())?;
        let device = result::device::get(index as i32).map_err(failed("cuDeviceGet"))?;
        let (major, minor) = compute_capability(device)?;
        if major < 8 {
            let name = result::device::get_name(device).map_err(failed("cuDeviceGetName"))?;
            let found = format!("{major}.{minor}");
            return Err(CudaError::GpuTooOld { name, found }.into());
        }
        let multiprocessors = attribute(
            device,
            sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
        )?;
        // SAFETY: the device came from the driver. The context is kept for the life of the process.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(failed("cuDevicePrimaryCtxRetain"))?;
        // SAFETY: the context was just retained.
        unsafe { result::ctx::set_current(context) }.map_err(failed("cuCtxSetCurrent"))?;
        let stream =
            || result::stream::create(result::stream::StreamKind::NonBlocking).map_err(failed("cuStreamCreate"));
        let (stream, notes) = (stream()?, stream()?);
        Ok(Self {
            context,
            stream,
            notes,
            recording: Mutex::default(),
            graphs: Mutex::default(),
            next_graph: AtomicU64::new(0),
            multiprocessors: multiprocessors as usize,
            arch: format!("sm_{major}{minor}"),
            compiler,
            modules: Mutex::default(),
            functions: Mutex::default(),
            products: CublasLt::open()?,
            convolutions: Cudnn::open(stream)?,
        })
    }

    /// Makes the context this thread's own.
    fn enter(&self) -> Result<(), CudaError> {
        // SAFETY: the context lives as long as the process.
        unsafe { result::ctx::set_current(self.context) }.map_err(failed("cuCtxSetCurrent"))
    }

    /// Where this thread's work goes.
    fn stream(&self) -> sys::CUstream {
        if *lock(&self.recording) == Some(std::thread::current().id()) {
            self.notes
        } else {
            self.stream
        }
    }

    fn function(&self, kernel: KernelId) -> Result<sys::CUfunction, CudaError> {
        let mut functions = lock(&self.functions);
        if let Some(function) = functions.get(&kernel) {
            return Ok(*function);
        }
        let mut modules = lock(&self.modules);
        let module = if let Some(module) = modules.get(&(kernel.file, kernel.dtype)) {
            *module
        } else {
            let code = self.compiler.compile(kernel.file, kernel.dtype, &self.arch)?;
            // SAFETY: `code` is machine code that NVRTC made for this GPU; the driver copies it.
            let module =
                unsafe { result::module::load_data(code.as_ptr().cast()) }.map_err(failed("cuModuleLoadData"))?;
            modules.insert((kernel.file, kernel.dtype), module);
            module
        };
        let name = CString::new(kernel.symbol()).map_err(|e| CudaError::call(kernel.name, e))?;
        // SAFETY: modules are never unloaded.
        let function =
            unsafe { result::module::get_function(module, name) }.map_err(|e| CudaError::call(kernel.name, e))?;
        functions.insert(kernel, function);
        Ok(function)
    }
}

impl Backend for Driver {
    fn multiprocessors(&self) -> usize {
        self.multiprocessors
    }

    fn capacity(&self) -> Result<Capacity, CudaError> {
        self.enter()?;
        let (free, total) = result::mem_get_info().map_err(failed("cuMemGetInfo"))?;
        Ok(Capacity { free, total })
    }

    fn join(&self, id: GroupId, rank: usize, world: usize) -> Result<Communicator, CudaError> {
        self.enter()?;
        Communicator::join(self.context, self.stream, id, rank, world)
    }

    fn allocate(&self, bytes: usize) -> Result<Option<u64>, CudaError> {
        self.enter()?;
        // SAFETY: the size is not zero; what comes back is given to one owner.
        match unsafe { result::malloc_sync(bytes) } {
            Ok(address) => Ok(Some(address)),
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Ok(None),
            Err(error) => Err(CudaError::call("cuMemAlloc", error)),
        }
    }

    unsafe fn release(&self, address: u64, _bytes: usize) {
        // An error here belongs to work that was reported elsewhere: a context that is lost gives its memory back itself.
        if self.enter().is_ok() {
            // SAFETY: the caller's promise. cuMemFree waits for work that uses the memory.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    unsafe fn upload(&self, bytes: &[u8], address: u64) -> Result<(), CudaError> {
        self.enter()?;
        // SAFETY: the caller's promise. Pageable memory is copied before the call returns.
        unsafe { result::memcpy_htod_async(address, bytes, self.stream) }.map_err(failed("cuMemcpyHtoD"))
    }

    unsafe fn download(&self, address: u64, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.enter()?;
        // SAFETY: the caller's promise; `bytes` is borrowed until the stream has done the copy.
        unsafe {
            result::memcpy_dtoh_async(bytes, address, self.stream).map_err(failed("cuMemcpyDtoH"))?;
            result::stream::synchronize(self.stream).map_err(failed("cuStreamSynchronize"))
        }
    }

    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<(), CudaError> {
        self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { result::memset_d8_async(address, 0, bytes, self.stream()) }.map_err(failed("cuMemsetD8"))
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), CudaError> {
        self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream()) }.map_err(failed("cuMemcpyDtoD"))
    }

    fn synchronize(&self) -> Result<(), CudaError> {
        self.enter()?;
        // SAFETY: the stream lives as long as the process.
        unsafe { result::stream::synchronize(self.stream) }.map_err(failed("cuStreamSynchronize"))
    }

    fn begin_recording(&self) -> Result<bool, CudaError> {
        let mut recording = lock(&self.recording);
        if recording.is_some() {
            return Ok(false);
        }
        self.enter()?;
        // Other threads go on allocating and waiting, which the stricter modes forbid.
        let relaxed = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream lives as long as the process.
        unsafe { result::stream::begin_capture(self.notes, relaxed) }.map_err(failed("cuStreamBeginCapture"))?;
        *recording = Some(std::thread::current().id());
        Ok(true)
    }

    fn end_recording(&self) -> Result<u64, CudaError> {
        *lock(&self.recording) = None;
        self.enter()?;
        // SAFETY: this thread began the capture; the graph is destroyed once, after its last use.
        let graph = unsafe {
            let noted = result::stream::end_capture(self.notes).map_err(failed("cuStreamEndCapture"))?;
            let graph = result::graph::instantiate(noted, sys::CUgraphInstantiate_flags(0));
            let _ = result::graph::destroy(noted);
            graph.map_err(failed("cuGraphInstantiate"))?
        };
        let number = self.next_graph.fetch_add(1, Ordering::Relaxed);
        lock(&self.graphs).insert(number, graph);
        Ok(number)
    }

    unsafe fn replay(&self, recording: u64) -> Result<(), CudaError> {
        self.enter()?;
        let graph = lock(&self.graphs).get(&recording).copied();
        let graph = graph.ok_or_else(|| CudaError::call("cuGraphLaunch", "no such recording"))?;
        // SAFETY: the graph is destroyed by `forget` only; its memory is the caller's promise.
        unsafe { result::graph::launch(graph, self.stream) }.map_err(failed("cuGraphLaunch"))
    }

    fn forget(&self, recording: u64) {
        let graph = lock(&self.graphs).remove(&recording);
        if let Some(graph) = graph
            && self.enter().is_ok()
        {
            // SAFETY: the graph was taken out of the table: this is its end. One that still runs ends first.
            let _ = unsafe { result::graph::exec_destroy(graph) };
        }
    }

    unsafe fn launch(
        &self,
        kernel: KernelId,
        [x, y, z]: [u32; 3],
        threads: u32,
        args: &mut [*mut c_void],
    ) -> Result<(), CudaError> {
        self.enter()?;
        let function = self.function(kernel)?;
        // SAFETY: the caller's promise; the driver reads the arguments before it returns.
        unsafe { result::launch_kernel(function, (x, y, z), (threads, 1, 1), 0, self.stream(), args) }
            .map_err(|e| CudaError::call(kernel.name, e))
    }

    unsafe fn product(
        &self,
        product: &Product,
        a: u64,
        b: u64,
        out: u64,
        bias_and_residual: [u64; 2],
    ) -> Result<bool, CudaError> {
        let Some(library) = &self.products else {
            return Ok(false);
        };
        self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { library.multiply(product, a, b, out, bias_and_residual, self.stream()) }
    }

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
        let Some(library) = &self.convolutions else {
            return Ok(false);
        };
        self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { library.convolve(direction, sizes, (dtype, tf32), a, b, out, workspace, self.stream()) }
    }
}
