//! Matrix products by cuBLASLt. Its matrices are column-major: seen so, our row-major `out [m, n]` is `[n, m]`, and the factors
//! change places.

use crate::backend::{Direction, Product, Then};
use crate::error::{CudaError, failed};
use crate::libraries::{Library, open};
use cudarc::cublaslt::{result, sys};
use cudarc::driver;
use prima_tensor::DType;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

/// Scratch memory that the algorithms may use: what NVIDIA advises for its newer GPUs.
const WORKSPACE_BYTES: usize = 32 << 20;

/// All that one shape needs; kept for the life of the process.
#[derive(Clone, Copy)]
struct ProductPlan {
    description: sys::cublasLtMatmulDesc_t,
    left: sys::cublasLtMatrixLayout_t,
    right: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
    /// `None`: the library knows no way, and our own kernel does it.
    algorithm: Option<sys::cublasLtMatmulAlgo_t>,
}

pub(crate) struct CublasLt {
    handle: sys::cublasLtHandle_t,
    workspace: u64,
    plans: Mutex<HashMap<Product, ProductPlan>>,
}

/// Sets an attribute of a product to the bytes of `value`.
fn set<V: Copy>(
    description: sys::cublasLtMatmulDesc_t,
    attribute: sys::cublasLtMatmulDescAttributes_t,
    value: &V,
) -> Result<(), CudaError> {
    // SAFETY: the description lives, and the value is read before the call returns.
    unsafe { result::set_matmul_desc_attribute(description, attribute, (&raw const *value).cast(), size_of::<V>()) }
        .map_err(failed("cublasLtMatmulDescSetAttribute"))
}

/// Bias and ReLU. (The library's GELU is the one by tanh, CLIP's and diffusers' is exact: a kernel of our own does it.)
fn set_epilogue(
    description: sys::cublasLtMatmulDesc_t,
    then: Then,
    storage: sys::cudaDataType_t,
) -> Result<(), CudaError> {
    use sys::cublasLtEpilogue_t::{
        CUBLASLT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_RELU, CUBLASLT_EPILOGUE_RELU_BIAS,
    };
    use sys::cublasLtMatmulDescAttributes_t::{CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUBLASLT_MATMUL_DESC_EPILOGUE};
    let epilogue = match (then.bias, then.relu) {
        (false, false) => CUBLASLT_EPILOGUE_DEFAULT,
        (true, false) => CUBLASLT_EPILOGUE_BIAS,
        (false, true) => CUBLASLT_EPILOGUE_RELU,
        (true, true) => CUBLASLT_EPILOGUE_RELU_BIAS,
    };
    set(description, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
    if then.bias {
        set(description, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &storage)?;
    }
    Ok(())
}

impl CublasLt {
    /// `None` where the library is missing. The GPU's context is current.
    pub fn open() -> Result<Option<Self>, CudaError> {
        // SAFETY: only asks whether the library can be opened.
        if open(Library::CublasLt).is_none() || !unsafe { sys::is_culib_present() } {
            return Ok(None);
        }
        Ok(Some(Self {
            handle: result::create_handle().map_err(failed("cublasLtCreate"))?,
            // SAFETY: the size is not zero; the memory is kept for the life of the process.
            workspace: unsafe { driver::result::malloc_sync(WORKSPACE_BYTES) }.map_err(failed("cuMemAlloc"))?,
            plans: Mutex::default(),
        }))
    }

    /// False where the library has no algorithm for these sizes.
    ///
    /// # Safety
    /// The addresses have the sizes of `product`, and the context is current.
    pub unsafe fn multiply(
        &self,
        product: &Product,
        a: u64,
        b: u64,
        out: u64,
        [bias, residual]: [u64; 2],
        stream: driver::sys::CUstream,
    ) -> Result<bool, CudaError> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = if let Some(plan) = plans.get(product) {
            *plan
        } else {
            let plan = self.plan(product)?;
            plans.insert(*product, plan);
            plan
        };
        let Some(algorithm) = plan.algorithm else {
            return Ok(false);
        };
        // Column-major, the right factor of ours is the left one.
        let (left, right) = (b, a);
        if product.then.bias {
            set(
                plan.description,
                sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                &bias,
            )?;
        }
        // The residual is the C of `D = A B + C`; where there is none, C is D and counts nothing.
        let (added, beta) = if product.then.residual {
            (residual, 1.0f32)
        } else {
            (out, 0.0)
        };
        let one = 1.0f32;
        // SAFETY: the plan's handles live for ever, the addresses are the caller's promise, and the lock keeps the workspace
        // to one product at a time (later ones are later in the stream).
        unsafe {
            result::matmul(
                self.handle,
                plan.description,
                (&raw const one).cast(),
                (&raw const beta).cast(),
                left as *const c_void,
                plan.left,
                right as *const c_void,
                plan.right,
                added as *const c_void,
                plan.out,
                out as *mut c_void,
                plan.out,
                &raw const algorithm,
                self.workspace as *mut c_void,
                WORKSPACE_BYTES,
                stream.cast(),
            )
        }
        .map_err(failed("cublasLtMatmul"))?;
        Ok(true)
    }

    fn plan(&self, product: &Product) -> Result<ProductPlan, CudaError> {
        let (m, n, k) = (product.m as u64, product.n as u64, product.k as u64);
        let storage = match product.dtype {
            DType::F32 => sys::cudaDataType_t::CUDA_R_32F,
            _ => sys::cudaDataType_t::CUDA_R_16BF,
        };
        let wide = sys::cudaDataType_t::CUDA_R_32F;
        let layout = |kind, rows: u64, columns: u64| {
            result::create_matrix_layout(kind, rows, columns, rows as i64).map_err(failed("cublasLtMatrixLayoutCreate"))
        };
        // Each row-major [lines, columns] is a column-major [columns, lines].
        let (left, right, out, transposed) = match product.direction {
            Direction::Forward => (
                layout(storage, k, n)?,
                layout(storage, k, m)?,
                layout(storage, n, m)?,
                [true, false],
            ),
            Direction::GradInput => (
                layout(storage, k, n)?,
                layout(storage, n, m)?,
                layout(storage, k, m)?,
                [false, false],
            ),
            Direction::GradWeight => (
                layout(storage, k, m)?,
                layout(storage, n, m)?,
                layout(wide, k, n)?,
                [false, true],
            ),
        };
        let compute = if product.tf32 && product.dtype == DType::F32 {
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32
        } else {
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F
        };
        let description = result::create_matmul_desc(compute, wide).map_err(failed("cublasLtMatmulDescCreate"))?;
        let sides = [
            sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
            sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSB,
        ];
        for (attribute, transposed) in sides.into_iter().zip(transposed) {
            // cublasOperation_t: 0 as it is, 1 transposed.
            set(description, attribute, &i32::from(transposed))?;
        }
        set_epilogue(description, product.then, storage)?;
        let algorithm = self.algorithm(description, [left, right, out])?;
        Ok(ProductPlan {
            description,
            left,
            right,
            out,
            algorithm,
        })
    }

    fn algorithm(
        &self,
        description: sys::cublasLtMatmulDesc_t,
        [left, right, out]: [sys::cublasLtMatrixLayout_t; 3],
    ) -> Result<Option<sys::cublasLtMatmulAlgo_t>, CudaError> {
        let preference = result::create_matmul_pref().map_err(failed("cublasLtMatmulPreferenceCreate"))?;
        let bytes = WORKSPACE_BYTES;
        let largest = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        // SAFETY: all handles live; the preference is destroyed once, after its last use.
        let found = unsafe {
            let set =
                result::set_matmul_pref_attribute(preference, largest, (&raw const bytes).cast(), size_of::<usize>());
            let found = set.and_then(|()| {
                result::get_matmul_algo_heuristic(self.handle, description, left, right, out, out, preference)
            });
            let _ = result::destroy_matmul_pref(preference);
            found
        };
        match found {
            Ok(found) => Ok(Some(found.algo)),
            Err(result::CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED)) => Ok(None),
            Err(error) => Err(CudaError::call("cublasLtMatmulAlgoGetHeuristic", error)),
        }
    }
}
