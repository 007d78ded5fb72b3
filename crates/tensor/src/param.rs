use crate::autograd::Node;
use crate::cpu::kernel::kernel;
use crate::cpu::{conv2d, linear};
use crate::device::gpu;
use crate::gpu::{DeviceArray, Form};
use crate::{DType, Tensor};
use half::bf16;
use std::any::Any;
use std::sync::{Arc, RwLock};

/// A parameter of a network: a tensor in the file's layout plus, once used, its packed form.
/// Clones share the value. Frozen unless [`Param::set_trainable`] is called.
#[derive(Clone)]
pub struct Param {
    inner: Arc<RwLock<State>>,
}

/// A parameter's value as it is kept.
pub enum Stored<'a> {
    Wide(&'a Tensor),
    Narrow(&'a [bf16]),
    /// That many values of that type, of which nothing is known: [`Param::absent`].
    Absent(usize, DType),
}

struct State {
    tensor: Tensor,
    /// The value where it is kept in bf16; `tensor` is then a scalar.
    narrow: Option<(Vec<bf16>, Vec<usize>)>,
    /// Shape and type of a value that is not there; `tensor` is then a scalar.
    absent: Option<(Vec<usize>, DType)>,
    /// Packed weights by use ("forward", "backward"), dropped when the value changes.
    packed: Vec<(u8, Arc<dyn Any + Send + Sync>)>,
    /// The value on devices, by device and form; dropped when the value changes.
    on_device: Vec<(u64, Form, Arc<dyn DeviceArray>)>,
    node: Option<Arc<Node>>,
    /// Whether products round to bf16 though the value is kept in f32.
    rounds: bool,
}

impl State {
    fn shape(&self) -> &[usize] {
        let narrow = self.narrow.as_ref().map(|(_, shape)| shape);
        let elsewhere = narrow.or(self.absent.as_ref().map(|(shape, _)| shape));
        elsewhere.map_or(self.tensor.shape(), Vec::as_slice)
    }

    /// The value changed: forms made of the one before are of no use.
    fn forget_copies(&mut self) {
        self.packed.clear();
        self.on_device.clear();
    }

    fn products_dtype(&self) -> DType {
        if self.narrow.is_some() || (self.rounds && kernel().multiplies_bf16) {
            DType::BF16
        } else {
            DType::F32
        }
    }

    fn stored(&self) -> Stored<'_> {
        match (&self.absent, &self.narrow) {
            (Some((shape, dtype)), _) => Stored::Absent(shape.iter().product(), *dtype),
            (None, Some((values, _))) => Stored::Narrow(values),
            (None, None) => Stored::Wide(&self.tensor),
        }
    }

    /// The value in f32, off the tape.
    fn wide(&self) -> Tensor {
        if let Some((shape, _)) = &self.absent {
            return Tensor::zeros(shape);
        }
        match &self.narrow {
            None => self.tensor.clone(),
            Some((values, shape)) => Tensor::from_vec(values.iter().map(|x| x.to_f32()).collect(), shape),
        }
    }
}

impl Param {
    pub fn new(tensor: Tensor) -> Self {
        Self {
            inner: Arc::new(RwLock::new(State {
                tensor: tensor.detach(),
                narrow: None,
                absent: None,
                packed: Vec::new(),
                on_device: Vec::new(),
                node: None,
                rounds: false,
            })),
        }
    }

    /// A parameter of that shape without a value (zeros where one is asked for): to find out what a network needs.
    pub fn absent(shape: &[usize]) -> Self {
        let param = Self::new(Tensor::scalar(0.0));
        param.write().absent = Some((shape.to_vec(), DType::F32));
        param
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn shape(&self) -> Vec<usize> {
        self.read().shape().to_vec()
    }

    pub fn numel(&self) -> usize {
        self.read().shape().iter().product()
    }

    /// The value; on the tape if the parameter is trainable. Kept in bf16, it is widened anew each time.
    pub fn tensor(&self) -> Tensor {
        let state = self.read();
        let mut tensor = state.wide();
        tensor.node.clone_from(&state.node);
        tensor
    }

    /// A scalar in the parameter's place on the tape: for ops that read the packed form only.
    pub(crate) fn on_tape(&self) -> Tensor {
        let mut place = Tensor::scalar(0.0);
        place.node.clone_from(&self.read().node);
        place
    }

    pub fn dtype(&self) -> DType {
        match self.read().stored() {
            Stored::Narrow(_) => DType::BF16,
            Stored::Absent(_, dtype) => dtype,
            Stored::Wide(_) => DType::F32,
        }
    }

    /// Keeps the value in bf16, half the memory, until it is [`set`](Self::set). Convolutions and linear layers
    /// then multiply in bf16 and sum in f32. For inference: a trainable parameter stays as it is.
    pub fn narrow_to_bf16(&self) {
        let mut state = self.write();
        if state.node.is_some() || state.narrow.is_some() {
            return;
        }
        if let Some((_, dtype)) = &mut state.absent {
            *dtype = DType::BF16;
            return;
        }
        let values = state.tensor.data().iter().map(|x| bf16::from_f32(*x)).collect();
        state.narrow = Some((values, state.tensor.shape().to_vec()));
        state.tensor = Tensor::scalar(0.0);
        state.forget_copies();
    }

    /// For training: linear layers and convolutions, forward and backward, and attention between them round their factors
    /// to bf16 and sum in f32, while the value stays f32. Only where the processor multiplies bf16 faster than f32; elsewhere,
    /// and on a GPU, which has a type of its own for products, it changes nothing.
    pub fn set_bf16_products(&self, on: bool) {
        let mut state = self.write();
        state.rounds = on;
        state.packed.clear();
    }

    /// What the factors of products with this parameter are rounded to on the CPU.
    pub fn products_dtype(&self) -> DType {
        self.read().products_dtype()
    }

    /// Replaces the value (same shape); packed forms are rebuilt at the next use.
    pub fn set(&self, tensor: &Tensor) {
        let mut state = self.write();
        assert_eq!(state.shape(), tensor.shape(), "a parameter keeps its shape");
        state.tensor = tensor.detach();
        state.narrow = None;
        state.absent = None;
        state.forget_copies();
    }

    /// Changes the values on the host, in place.
    pub fn update(&self, f: impl FnOnce(&mut [f32])) {
        self.change(|tensor| tensor.edit(f));
    }

    /// Changes the value, whose shape stays, wherever it lies: what optimizers and averages use.
    pub fn change(&self, f: impl FnOnce(&mut Tensor)) {
        let mut state = self.write();
        state.forget_copies();
        if state.narrow.is_some() || state.absent.is_some() {
            state.tensor = state.wide();
            state.narrow = None;
            state.absent = None;
        }
        let shape = state.tensor.shape().to_vec();
        f(&mut state.tensor);
        assert_eq!(state.tensor.shape(), shape, "a parameter keeps its shape");
    }

    pub fn set_trainable(&self, trainable: bool) {
        self.write().node = trainable.then(Node::leaf);
    }

    pub(crate) fn node_id(&self) -> Option<u64> {
        self.read().node.as_ref().map(|n| n.id())
    }

    /// Packs the weight of a linear layer or convolution for its products now, not at its first use. Does nothing to other
    /// shapes, to one without a value, nor where the products run on a GPU.
    pub fn pack(&self) {
        if gpu().is_some() || self.read().absent.is_some() {
            return;
        }
        match self.shape()[..] {
            [n, k] => drop(linear::packed_weight(self, n, k)),
            // One input channel may be a depthwise filter, which is packed otherwise.
            [outputs, inputs, kh, kw] if inputs > 1 => drop(conv2d::packed_weight(self, outputs, inputs, kh * kw)),
            _ => {}
        }
    }

    /// The packed form for `usage`, built once per value. A usage has one type.
    pub(crate) fn packed<T: Any + Send + Sync>(&self, usage: u8, pack: impl FnOnce(&Tensor, DType) -> T) -> Arc<T> {
        let find = |state: &State| {
            let found = state.packed.iter().find(|(u, _)| *u == usage)?;
            let packed = found.1.clone().downcast();
            Some(packed.unwrap_or_else(|_| panic!("usage {usage} was packed as another type")))
        };
        if let Some(packed) = find(&self.read()) {
            return packed;
        }
        let mut state = self.write();
        if let Some(packed) = find(&state) {
            return packed;
        }
        let packed = Arc::new(pack(&state.wide(), state.products_dtype()));
        state.packed.push((usage, packed.clone()));
        packed
    }
}

impl Param {
    /// The value on device `device` in `form`, moved there once per value; `upload` is given the value and its shape.
    pub fn on_device(
        &self,
        device: u64,
        form: Form,
        upload: impl FnOnce(Stored, &[usize]) -> Arc<dyn DeviceArray>,
    ) -> Arc<dyn DeviceArray> {
        let find = |state: &State| {
            let mut copies = state.on_device.iter();
            copies.find(|(d, f, _)| (*d, *f) == (device, form)).map(|c| c.2.clone())
        };
        if let Some(found) = find(&self.read()) {
            return found;
        }
        let mut state = self.write();
        if let Some(found) = find(&state) {
            return found;
        }
        let array = upload(state.stored(), state.shape());
        state.on_device.push((device, form, array.clone()));
        array
    }
}

impl std::fmt::Debug for Param {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Param{:?}", self.shape())
    }
}
