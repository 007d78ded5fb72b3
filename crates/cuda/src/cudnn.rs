//! Convolutions by cuDNN on channels-last pictures.

use crate::backend::Direction;
use crate::error::{CudaError, failed};
use crate::libraries::{Library, open};
use cudarc::cudnn::{result, sys};
use cudarc::driver;
use prima_tensor::DType;
use prima_tensor::ops::ConvolutionSizes;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

/// An algorithm that wants more scratch memory than this is passed over.
const LARGEST_WORKSPACE_BYTES: usize = 1 << 30;

/// How many proposals are looked at.
const PROPOSALS: usize = 8;

#[derive(Clone, Copy)]
enum Algorithm {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    GradInput(sys::cudnnConvolutionBwdDataAlgo_t),
    GradWeight(sys::cudnnConvolutionBwdFilterAlgo_t),
}

/// All that one shape needs; kept for the life of the process.
#[derive(Clone, Copy)]
struct ConvolutionPlan {
    x: sys::cudnnTensorDescriptor_t,
    weight: sys::cudnnFilterDescriptor_t,
    out: sys::cudnnTensorDescriptor_t,
    convolution: sys::cudnnConvolutionDescriptor_t,
    /// And its scratch memory in bytes. `None`: the library knows no way, and our own kernel does it.
    algorithm: Option<(Algorithm, usize)>,
}

/// The type of the values, and whether f32 ones may be rounded to TF32.
type Arithmetic = (DType, bool);

struct State {
    plans: HashMap<(Direction, ConvolutionSizes, Arithmetic), ConvolutionPlan>,
    /// Where the handle's work goes.
    stream: driver::sys::CUstream,
}

pub(crate) struct Cudnn {
    handle: sys::cudnnHandle_t,
    /// Also the lock on the handle, which is one thread's at a time.
    state: Mutex<State>,
}

impl Cudnn {
    /// `None` where the library is missing. The context of `stream` is current.
    pub fn open(stream: driver::sys::CUstream) -> Result<Option<Self>, CudaError> {
        // cuDNN looks for cuBLASLt under its plain name.
        let _ = open(Library::CublasLt);
        // SAFETY: only asks whether the library can be opened.
        if open(Library::Cudnn).is_none() || !unsafe { sys::is_culib_present() } {
            return Ok(None);
        }
        let handle = result::create_handle().map_err(failed("cudnnCreate"))?;
        // SAFETY: handle and stream live.
        unsafe { result::set_stream(handle, stream.cast()) }.map_err(failed("cudnnSetStream"))?;
        Ok(Some(Self {
            handle,
            state: Mutex::new(State {
                plans: HashMap::new(),
                stream,
            }),
        }))
    }

    /// False where cuDNN has no way to do it: it pads both sides alike, and an algorithm has to exist.
    ///
    /// # Safety
    /// The addresses have the sizes of `sizes` by `direction`, and the context is current.
    pub unsafe fn convolve(
        &self,
        direction: Direction,
        sizes: &ConvolutionSizes,
        arithmetic: Arithmetic,
        a: u64,
        b: u64,
        out: u64,
        workspace: &mut dyn FnMut(usize) -> u64,
        stream: driver::sys::CUstream,
    ) -> Result<bool, CudaError> {
        let [top, bottom, left, right] = sizes.padding;
        if top != bottom || left != right {
            return Ok(false);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (direction, *sizes, arithmetic);
        let plan = if let Some(plan) = state.plans.get(&key) {
            *plan
        } else {
            let plan = self.plan(direction, sizes, arithmetic)?;
            state.plans.insert(key, plan);
            plan
        };
        if state.stream != stream {
            // SAFETY: handle and stream live.
            unsafe { result::set_stream(self.handle, stream.cast()) }.map_err(failed("cudnnSetStream"))?;
            state.stream = stream;
        }
        let Some((algorithm, bytes)) = plan.algorithm else {
            return Ok(false);
        };
        let scratch = if bytes == 0 { 0 } else { workspace(bytes) } as *mut c_void;
        let (one, zero) = (1.0f32, 0.0f32);
        let (one, zero) = ((&raw const one).cast(), (&raw const zero).cast());
        let (a, b, out) = (a as *const c_void, b as *const c_void, out as *mut c_void);
        let (handle, conv) = (self.handle, plan.convolution);
        // SAFETY: the plan's handles live for ever; the addresses are the caller's promise, the workspace is as large as asked.
        unsafe {
            match algorithm {
                Algorithm::Forward(algorithm) => result::convolution_forward(
                    handle,
                    one,
                    plan.x,
                    a,
                    plan.weight,
                    b,
                    conv,
                    algorithm,
                    scratch,
                    bytes,
                    zero,
                    plan.out,
                    out,
                ),
                Algorithm::GradInput(algorithm) => result::convolution_backward_data(
                    handle,
                    one,
                    plan.weight,
                    b,
                    plan.out,
                    a,
                    conv,
                    algorithm,
                    scratch,
                    bytes,
                    zero,
                    plan.x,
                    out,
                ),
                Algorithm::GradWeight(algorithm) => result::convolution_backward_filter(
                    handle,
                    one,
                    plan.x,
                    b,
                    plan.out,
                    a,
                    conv,
                    algorithm,
                    scratch,
                    bytes,
                    zero,
                    plan.weight,
                    out,
                ),
            }
        }
        .map_err(failed("cudnnConvolution"))?;
        Ok(true)
    }

    fn plan(
        &self,
        direction: Direction,
        s: &ConvolutionSizes,
        (dtype, tf32): Arithmetic,
    ) -> Result<ConvolutionPlan, CudaError> {
        let storage = match dtype {
            DType::F32 => sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
            _ => sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
        };
        let channels_last = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let picture = |channels: usize, height: usize, width: usize| {
            let descriptor = result::create_tensor_descriptor().map_err(failed("cudnnCreateTensorDescriptor"))?;
            let shape = [s.batch as i32, channels as i32, height as i32, width as i32];
            // SAFETY: the descriptor was just made.
            unsafe { result::set_tensor4d_descriptor(descriptor, channels_last, storage, shape) }
                .map_err(failed("cudnnSetTensor4dDescriptor"))?;
            Ok(descriptor)
        };
        let x = picture(s.inputs, s.height, s.width)?;
        let out = picture(s.outputs, s.out_height, s.out_width)?;
        let weight = result::create_filter_descriptor().map_err(failed("cudnnCreateFilterDescriptor"))?;
        let shape = [s.outputs as i32, s.inputs as i32, s.kh as i32, s.kw as i32];
        // SAFETY: the descriptor was just made.
        unsafe { result::set_filter4d_descriptor(weight, storage, channels_last, shape) }
            .map_err(failed("cudnnSetFilter4dDescriptor"))?;
        let convolution =
            result::create_convolution_descriptor().map_err(failed("cudnnCreateConvolutionDescriptor"))?;
        let [top, _, left, _] = s.padding.map(|p| p as i32);
        let stride = s.stride as i32;
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let compute = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
        // Plain f32 where f32 was asked for: no TF32.
        let math = match dtype {
            DType::F32 if !tf32 => sys::cudnnMathType_t::CUDNN_FMA_MATH,
            _ => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
        };
        // SAFETY: the descriptor was just made.
        unsafe {
            result::set_convolution2d_descriptor(convolution, top, left, stride, stride, 1, 1, mode, compute)
                .map_err(failed("cudnnSetConvolution2dDescriptor"))?;
            result::set_convolution_math_type(convolution, math).map_err(failed("cudnnSetConvolutionMathType"))?;
        }
        let algorithm = self.algorithm(direction, x, weight, convolution, out)?;
        Ok(ConvolutionPlan {
            x,
            weight,
            out,
            convolution,
            algorithm,
        })
    }

    /// The first of the library's proposals that works in the memory allowed.
    fn algorithm(
        &self,
        direction: Direction,
        x: sys::cudnnTensorDescriptor_t,
        weight: sys::cudnnFilterDescriptor_t,
        convolution: sys::cudnnConvolutionDescriptor_t,
        out: sys::cudnnTensorDescriptor_t,
    ) -> Result<Option<(Algorithm, usize)>, CudaError> {
        /// Asks for proposals and takes the first sound one.
        macro_rules! first {
            ($variant:ident, $proposal:ty, $ask:path, $a:expr, $b:expr, $c:expr) => {{
                let mut count = 0;
                // SAFETY: the proposals are plain numbers, for which zero is a value.
                let mut proposals: [$proposal; PROPOSALS] = unsafe { std::mem::zeroed() };
                let wanted = PROPOSALS as i32;
                // SAFETY: all handles live, and there is room for the proposals.
                let asked = unsafe {
                    $ask(
                        self.handle,
                        $a,
                        $b,
                        convolution,
                        $c,
                        wanted,
                        &raw mut count,
                        proposals.as_mut_ptr(),
                    )
                };
                match asked {
                    Err(result::CudnnError(sys::cudnnStatus_t::CUDNN_STATUS_NOT_SUPPORTED)) => return Ok(None),
                    other => other.map_err(failed(stringify!($ask)))?,
                }
                proposals[..(count as usize).min(PROPOSALS)]
                    .iter()
                    .find(|p| {
                        p.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS && p.memory <= LARGEST_WORKSPACE_BYTES
                    })
                    .map(|p| (Algorithm::$variant(p.algo), p.memory))
            }};
        }
        Ok(match direction {
            Direction::Forward => first!(
                Forward,
                sys::cudnnConvolutionFwdAlgoPerf_t,
                result::get_convolution_forward_algorithm,
                x,
                weight,
                out
            ),
            Direction::GradInput => first!(
                GradInput,
                sys::cudnnConvolutionBwdDataAlgoPerf_t,
                result::get_convolution_backward_data_algorithm,
                weight,
                out,
                x
            ),
            Direction::GradWeight => first!(
                GradWeight,
                sys::cudnnConvolutionBwdFilterAlgoPerf_t,
                result::get_convolution_backward_filter_algorithm,
                x,
                out,
                weight
            ),
        })
    }
}
