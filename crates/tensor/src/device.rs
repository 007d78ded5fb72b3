//! Where ops run: on the CPU, or on a GPU ([`crate::gpu`]).
//!
//! A device is chosen for the process ([`Device::make_default`], what `--device` does) or for a closure ([`Device::run`], what
//! tests do). Ops then compute there; a tensor that is elsewhere is moved when an op needs it, and
//! [`Tensor::data`](crate::Tensor::data) reads one back.

use crate::gpu::{Gpu, RecordingCounts, Usage};
use crate::{DType, DeviceError, Tensor};
use rayon::prelude::*;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

/// What a user may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU if there is one, else the CPU.
    Auto,
    #[default]
    Cpu,
    /// GPU number N.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    /// `auto`, `cpu`, `cuda` (the first GPU) or `cuda:N`.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => name
                .strip_prefix("cuda:")
                .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|digits| digits.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| DeviceError::UnknownDevice { given: name.to_owned() }),
        }
    }
}

/// A place to compute. Cloning shares it.
#[derive(Clone, Default)]
pub struct Device {
    /// `None`: the CPU.
    gpu: Option<Arc<dyn Gpu>>,
}

static DEFAULT: RwLock<Option<Arc<dyn Gpu>>> = RwLock::new(None);

thread_local! {
    /// The device of the closure that this thread is in, if any.
    static SCOPED: RefCell<Option<Device>> = const { RefCell::new(None) };
}

impl Device {
    pub fn cpu() -> Self {
        Self::default()
    }

    /// A GPU. On it activations are stored as it says, on the CPU they are always f32.
    pub fn of(gpu: Arc<dyn Gpu>) -> Self {
        Self { gpu: Some(gpu) }
    }

    /// A device that computes nothing and counts what the same work would allocate with activations of `dtype` on this one;
    /// `None` on the CPU, where nothing is counted.
    pub fn dry_run(&self, dtype: DType) -> Option<Self> {
        self.gpu.as_ref().map(|gpu| gpu.dry_run(dtype))
    }

    /// Where ops of this thread compute.
    pub fn current() -> Self {
        Self { gpu: gpu() }
    }

    /// How activations are stored: f32 on the CPU.
    pub fn dtype(&self) -> DType {
        self.gpu.as_ref().map_or(DType::F32, |gpu| gpu.dtype())
    }

    /// Waits for all work that was asked for.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.gpu.as_ref().map_or(Ok(()), |gpu| catch(|| gpu.synchronize()))
    }

    /// Memory and copies; zeros on the CPU.
    pub fn usage(&self) -> Usage {
        self.gpu.as_ref().map(|gpu| gpu.usage()).unwrap_or_default()
    }

    /// Counts peaks and copies anew, and gives memory that is kept for later back.
    pub fn reset_usage(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.reset_usage();
        }
    }

    /// Free and all memory of the GPU in bytes; `None` on the CPU.
    pub fn memory(&self) -> Result<Option<(usize, usize)>, DeviceError> {
        self.gpu.as_ref().map(|gpu| gpu.memory()).transpose()
    }

    /// Drops recorded work, whose memory is then free.
    pub fn forget_recordings(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.forget_recordings();
        }
    }

    pub fn recordings(&self) -> RecordingCounts {
        self.gpu.as_ref().map(|gpu| gpu.recording_counts()).unwrap_or_default()
    }

    /// `None`: the CPU.
    pub fn gpu(&self) -> Option<&Arc<dyn Gpu>> {
        self.gpu.as_ref()
    }

    pub fn is_gpu(&self) -> bool {
        self.gpu.is_some()
    }

    /// Ops of every thread compute here from now on.
    pub fn make_default(&self) {
        (*DEFAULT.write().unwrap_or_else(PoisonError::into_inner)).clone_from(&self.gpu);
    }

    /// Ops of this thread compute here while `f` runs.
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> T {
        /// Puts the device of before back, also when `f` unwinds.
        struct Back(Option<Device>);
        impl Drop for Back {
            fn drop(&mut self) {
                SCOPED.set(self.0.take());
            }
        }
        let _back = Back(SCOPED.replace(Some(self.clone())));
        f()
    }

    /// The tensor here, without a copy if it is.
    pub fn hold(&self, tensor: Tensor) -> Tensor {
        match &self.gpu {
            Some(gpu) => gpu.copy(&tensor),
            None => tensor,
        }
    }

    /// The tensor's values here.
    pub fn copy(&self, tensor: &Tensor) -> Tensor {
        match &self.gpu {
            Some(gpu) => gpu.copy(tensor),
            None => Tensor::from_vec(tensor.data().to_vec(), tensor.shape()),
        }
    }
}

/// The GPU that ops compute on; `None` is the CPU.
pub(crate) fn gpu() -> Option<Arc<dyn Gpu>> {
    match SCOPED.with_borrow(Clone::clone) {
        Some(device) => device.gpu,
        None => DEFAULT.read().unwrap_or_else(PoisonError::into_inner).clone(),
    }
}

/// `f` for each item: side by side on the CPU, one after the other on a GPU, which takes work in order anyway.
pub fn for_each<T: Send>(items: impl IntoIterator<Item = T>, f: impl Fn(T) + Send + Sync) {
    let items = items.into_iter();
    if gpu().is_some() {
        items.for_each(f);
    } else {
        items.collect::<Vec<T>>().into_par_iter().for_each(f);
    }
}

/// Ends the work in progress. Ops return tensors, not results: a failing device unwinds, dropping (and so giving back) what
/// the work had allocated, up to [`catch`].
pub fn fail(error: impl Into<DeviceError>) -> ! {
    std::panic::resume_unwind(Box::new(error.into()))
}

/// Runs `f`, ending it early if the device fails: out of memory, most likely. What it had allocated is free again then.
pub fn catch<T>(f: impl FnOnce() -> T) -> Result<T, DeviceError> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| match panic.downcast::<DeviceError>() {
        Ok(error) => *error,
        Err(other) => resume_unwind(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_users_write_them() {
        let parsed = |name: &str| name.parse::<DeviceChoice>().ok();
        assert_eq!(parsed("auto"), Some(DeviceChoice::Auto));
        assert_eq!(parsed("cpu"), Some(DeviceChoice::Cpu));
        assert_eq!(parsed("cuda"), Some(DeviceChoice::Cuda(0)));
        assert_eq!(parsed("cuda:3"), Some(DeviceChoice::Cuda(3)));
        for wrong in [
            "",
            "gpu",
            "cuda:",
            "cuda:-1",
            "cuda:+1",
            "cuda:x",
            "CUDA",
            "cuda:99999999999999999999999",
        ] {
            let error = wrong.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(error.contains("auto, cpu, cuda or cuda:N"), "{error}");
        }
    }

    #[test]
    fn a_failing_device_is_an_error_and_a_panic_stays_one() {
        let failed = catch(|| -> () { fail(DeviceError::WithoutCuda) });
        assert!(matches!(failed, Err(DeviceError::WithoutCuda)));
        assert!(std::panic::catch_unwind(|| catch(|| std::panic::resume_unwind(Box::new("other")))).is_err());
        assert_eq!(catch(|| 3).unwrap(), 3);
    }
}
