use crate::autograd::{self, Node};
use crate::cpu::parallel::copied;
use crate::gpu::DeviceArray;
use std::sync::Arc;

/// An immutable, contiguous, row-major array of `f32`. Cloning and reshaping share storage. On a GPU it may be stored as bf16;
/// [`data`](Self::data) and its like then read it back in f32.
#[derive(Clone)]
pub struct Tensor {
    shape: Vec<usize>,
    storage: Storage,
    pub(crate) node: Option<Arc<Node>>,
}

#[derive(Clone)]
enum Storage {
    Host(Arc<Vec<f32>>),
    Device(Arc<dyn DeviceArray>),
}

impl Tensor {
    /// A tensor that owns `data`, laid out row-major.
    pub fn from_vec(data: Vec<f32>, shape: &[usize]) -> Self {
        assert_eq!(
            data.len(),
            shape.iter().product::<usize>(),
            "{} values do not fill shape {shape:?}",
            data.len()
        );
        Self {
            shape: shape.to_vec(),
            storage: Storage::Host(Arc::new(data)),
            node: None,
        }
    }

    /// A tensor whose values lie on a device.
    pub fn from_array(array: Arc<dyn DeviceArray>, shape: &[usize]) -> Self {
        assert_eq!(
            array.len(),
            shape.iter().product::<usize>(),
            "values for shape {shape:?}"
        );
        Self {
            shape: shape.to_vec(),
            storage: Storage::Device(array),
            node: None,
        }
    }

    /// Where the values lie on a device, if they do.
    pub fn array(&self) -> Option<&Arc<dyn DeviceArray>> {
        match &self.storage {
            Storage::Host(_) => None,
            Storage::Device(array) => Some(array),
        }
    }

    pub fn zeros(shape: &[usize]) -> Self {
        Self::full(0.0, shape)
    }

    pub fn full(value: f32, shape: &[usize]) -> Self {
        Self::from_vec(vec![value; shape.iter().product()], shape)
    }

    pub fn scalar(value: f32) -> Self {
        Self::from_vec(vec![value], &[])
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Size of axis `i`; negative counts from the last axis.
    pub fn dim(&self, i: isize) -> usize {
        let rank = self.shape.len() as isize;
        self.shape[(if i < 0 { i + rank } else { i }) as usize]
    }

    pub fn numel(&self) -> usize {
        match &self.storage {
            Storage::Host(values) => values.len(),
            Storage::Device(array) => array.len(),
        }
    }

    /// The values. The first time that they are asked for on a device, this waits for it.
    pub fn data(&self) -> &[f32] {
        match &self.storage {
            Storage::Host(values) => values,
            Storage::Device(array) => array.host(),
        }
    }

    /// The values, without a copy when this is the only owner.
    pub fn into_vec(self) -> Vec<f32> {
        match self.storage {
            Storage::Host(values) => Arc::try_unwrap(values).unwrap_or_else(|shared| copied(&shared)),
            Storage::Device(array) => array.into_host(),
        }
    }

    /// The values on the host, if this is their only owner.
    pub(crate) fn own_data(&mut self) -> Option<&mut [f32]> {
        match &mut self.storage {
            Storage::Host(values) => Arc::get_mut(values).map(Vec::as_mut_slice),
            Storage::Device(_) => None,
        }
    }

    /// Changes the values on the host, in place where this is the only owner. Leaves the tape.
    pub(crate) fn edit(&mut self, f: impl FnOnce(&mut [f32])) {
        let shape = self.shape.clone();
        let mut data = std::mem::replace(self, Self::scalar(0.0)).into_vec();
        f(&mut data);
        *self = Self::from_vec(data, &shape);
    }

    /// Whether both share one storage on the host: their values are then the same without looking.
    pub fn shares_values(&self, other: &Self) -> bool {
        match (&self.storage, &other.storage) {
            (Storage::Host(a), Storage::Host(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// The single value of a scalar tensor.
    pub fn item(&self) -> f32 {
        assert_eq!(self.numel(), 1, "item() wants one value, shape is {:?}", self.shape);
        self.data()[0]
    }

    /// The same values under another shape (shared storage, differentiable).
    pub fn reshape(&self, shape: &[usize]) -> Self {
        assert_eq!(
            self.numel(),
            shape.iter().product::<usize>(),
            "cannot reshape {:?} to {shape:?}",
            self.shape
        );
        let out = Self {
            shape: shape.to_vec(),
            storage: self.storage.clone(),
            node: None,
        };
        let from = self.shape.clone();
        autograd::record(out, &[self], move |g| vec![Some(g.reshape(&from))])
    }

    /// The same values cut off from the tape (stop-gradient).
    pub fn detach(&self) -> Self {
        Self {
            shape: self.shape.clone(),
            storage: self.storage.clone(),
            node: None,
        }
    }

    /// A leaf whose gradient [`Gradients::get`](crate::Gradients::get) can return.
    pub fn requires_grad(&self) -> Self {
        let mut leaf = self.detach();
        leaf.node = Some(Node::leaf());
        leaf
    }

    /// Gradients of this scalar with respect to every recorded leaf.
    pub fn backward(&self) -> crate::Gradients {
        autograd::backward(self)
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head: Vec<f32> = self.data().iter().take(8).copied().collect();
        write!(f, "Tensor{:?} {head:?}", self.shape)
    }
}
