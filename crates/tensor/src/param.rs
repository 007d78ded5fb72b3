use crate::allocator::room;
use crate::autograd::Node;
use crate::cpu::int4::Int4Rows;
use crate::cpu::kernel::kernel;
use crate::cpu::pack::Words;
use crate::cpu::packed::Packed;
use crate::cpu::weights::{self, Keep, Values};
use crate::cpu::winograd;
use crate::gpu::{DeviceArray, Form};
use crate::{DType, Tensor, Trial};
use half::bf16;
use std::any::Any;
use std::ops::Range;
use std::sync::{Arc, RwLock};

mod forms;

pub use forms::{FormTag, layout};

/// The packed form that [`Param::panels`] makes.
const FORWARD: u8 = 0;

/// A parameter of a network: a tensor in the file's layout plus, once used, its packed form.
/// Clones share the value. Frozen unless [`Param::set_trainable`] is called.
#[derive(Clone)]
pub struct Param {
    inner: Arc<RwLock<State>>,
}

/// See [`Param::id`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParamId(usize);

/// A parameter's value as it is kept.
pub enum Stored<'a> {
    Wide(&'a Tensor),
    Narrow(&'a [bf16]),
    /// That many values of that type, of which nothing is known: [`Param::absent`].
    Absent(usize, DType),
}

/// The value, in the file's layout or in the one that products read.
enum Value {
    Wide(Tensor),
    Narrow(Words<bf16, Vec<bf16>>),
    /// Only as panels of the forward pass, from which it is unpacked where anything else is wanted.
    Packed(Arc<Packed>),
    /// Not there.
    Absent(DType),
}

struct State {
    shape: Vec<usize>,
    value: Value,
    /// Packed weights by use ("forward", "backward"), dropped when the value changes.
    packed: Vec<(u8, Arc<dyn Any + Send + Sync>)>,
    /// The value on devices, by device and form; dropped when the value changes.
    on_device: Vec<(u64, Form, Arc<dyn DeviceArray>)>,
    node: Option<Arc<Node>>,
    /// How often the value has been replaced.
    version: u64,
    /// Whether products round to bf16 though the value is kept in f32.
    rounds: bool,
    /// See [`Param::sums_weights`].
    summed: bool,
    trial: Option<Arc<Trial>>,
}

impl State {
    /// The value changed: forms made of the one before are of no use.
    fn replace(&mut self, value: Value) {
        self.value = value;
        self.version += 1;
        self.packed.clear();
        self.on_device.clear();
    }

    fn dtype(&self) -> DType {
        match &self.value {
            Value::Wide(_) => DType::F32,
            Value::Narrow(_) => DType::BF16,
            Value::Packed(packed) => packed.dtype(),
            Value::Absent(dtype) => *dtype,
        }
    }

    fn products_dtype(&self) -> DType {
        let is_narrow = match &self.value {
            Value::Narrow(_) => true,
            Value::Packed(packed) => packed.dtype() == DType::BF16,
            Value::Wide(_) | Value::Absent(_) => false,
        };
        if is_narrow || (self.rounds && kernel().multiplies_bf16) {
            DType::BF16
        } else {
            DType::F32
        }
    }

    /// The value in f32, off the tape.
    fn wide(&self) -> Tensor {
        match &self.value {
            Value::Wide(tensor) => tensor.clone(),
            Value::Narrow(values) => Tensor::from_vec(values.iter().map(|x| x.to_f32()).collect(), &self.shape),
            Value::Packed(packed) => Tensor::from_vec(weights::unpack(packed, &self.shape), &self.shape),
            Value::Absent(_) => Tensor::zeros(&self.shape),
        }
    }
}

/// Values that are read at once where they stay in their order.
const PART: usize = 1 << 18;

/// `read(range, scratch)` for consecutive ranges of `0..len`.
fn in_parts<T, E>(len: usize, mut read: impl FnMut(Range<usize>, &mut Vec<T>) -> Result<(), E>) -> Result<(), E> {
    let mut space = Vec::new();
    (0..len)
        .step_by(PART)
        .try_for_each(|first| read(first..len.min(first + PART), &mut space))
}

impl Param {
    pub fn new(tensor: Tensor) -> Self {
        let tensor = tensor.detach();
        Self::of(tensor.shape().to_vec(), Value::Wide(tensor))
    }

    /// A parameter of that shape without a value (zeros where one is asked for): to find out what a network needs, or for
    /// [`fill`](Self::fill).
    pub fn absent(shape: &[usize]) -> Self {
        Self::of(shape.to_vec(), Value::Absent(DType::F32))
    }

    fn of(shape: Vec<usize>, value: Value) -> Self {
        Self {
            inner: Arc::new(RwLock::new(State {
                shape,
                value,
                packed: Vec::new(),
                on_device: Vec::new(),
                node: None,
                version: 0,
                rounds: false,
                summed: false,
                trial: None,
            })),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn shape(&self) -> Vec<usize> {
        self.read().shape.clone()
    }

    pub fn numel(&self) -> usize {
        self.read().shape.iter().product()
    }

    /// The value; on the tape if the parameter is trainable. Kept in bf16 or packed, it is made anew each time.
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

    /// The rows `ids` of a table `[rows, width]`, one after the other.
    pub(crate) fn rows(&self, ids: &[u32]) -> Vec<f32> {
        let state = self.read();
        let width = state.shape[1];
        let rows = ids.iter().map(|&id| id as usize * width..(id as usize + 1) * width);
        if let Value::Narrow(values) = &state.value {
            return rows.flat_map(|row| &values[row]).map(|x| x.to_f32()).collect();
        }
        let table = state.wide();
        rows.flat_map(|row| &table.data()[row]).copied().collect()
    }

    pub fn dtype(&self) -> DType {
        self.read().dtype()
    }

    /// Keeps the value in bf16, half the memory, until it is [`set`](Self::set). Convolutions and linear layers
    /// then multiply in bf16 and sum in f32. For inference: a trainable parameter stays as it is.
    pub fn narrow_to_bf16(&self) {
        let mut state = self.write();
        if state.node.is_some() || state.dtype() == DType::BF16 {
            return;
        }
        let narrow = if let Value::Absent(_) = &state.value {
            Value::Absent(DType::BF16)
        } else {
            let wide = state.wide();
            Value::Narrow(Words::Owned(wide.data().iter().map(|x| bf16::from_f32(*x)).collect()))
        };
        state.replace(narrow);
    }

    /// Keeps a weight of a linear layer or a convolution in 8 bits, a quarter of the memory, until it is [`set`](Self::set):
    /// a scale for each output, rounded activations too. For inference on the CPU; other parameters stay as they are, and so do
    /// those that are trained.
    pub fn quantize_to_int8(&self) {
        self.keep_packed(weights::fits_int8, |shape, values| {
            let Ok(packed) = weights::pack_int8(shape, values);
            packed
        });
    }

    /// The same in 4 bits, of which each 32 inputs of an output have a step and a zero; products are those of 8 bits. Weights
    /// whose inputs are no multiple of 32 stay as they are.
    pub fn quantize_to_int4(&self) {
        self.keep_packed(weights::fits_int4, |shape, values| {
            let Ok(packed) = weights::pack_int4(shape, values);
            packed
        });
    }

    fn keep_packed(&self, fits: fn(&[usize]) -> bool, pack: impl Fn(&[usize], &[f32]) -> Packed) {
        let mut state = self.write();
        if state.node.is_some() || !fits(&state.shape) {
            return;
        }
        let packed = pack(&state.shape, state.wide().data());
        state.replace(Value::Packed(Arc::new(packed)));
        state.trial = None;
    }

    /// 8 or 4, where the weight is kept in so many bits.
    pub fn bits(&self) -> Option<u8> {
        match &self.read().value {
            Value::Packed(packed) => match **packed {
                Packed::Int8(_) => Some(8),
                Packed::Int4(_) => Some(4),
                _ => None,
            },
            _ => None,
        }
    }

    /// A weight that is kept in 4 bits.
    pub fn int4_values(&self) -> Option<Int4Rows> {
        let state = self.read();
        match &state.value {
            Value::Packed(packed) => match &**packed {
                Packed::Int4(panels) => Some(panels.rows(state.shape[0])),
                _ => None,
            },
            _ => None,
        }
    }

    /// A weight that is kept in 8 bits, in the file's layout, and what one is worth for each output.
    pub fn int8_values(&self) -> Option<(Vec<i8>, Vec<f32>)> {
        let state = self.read();
        match &state.value {
            Value::Packed(packed) => weights::unpack_int8(packed, &state.shape),
            _ => None,
        }
    }

    /// [`quantize_to_int4`](Self::quantize_to_int4) or else [`quantize_to_int8`](Self::quantize_to_int8).
    pub fn quantize(&self, bits: u8) {
        if bits == 4 {
            self.quantize_to_int4();
        } else {
            self.quantize_to_int8();
        }
    }

    /// From now on each product with this weight on the CPU is computed a second time with a copy of it in `bits` bits, 8 or 4,
    /// and compared. `None` where [`quantize`](Self::quantize) would do nothing.
    pub fn try_bits(&self, bits: u8) -> Option<Arc<Trial>> {
        let mut state = self.write();
        let fits = if bits == 4 {
            weights::fits_int4
        } else {
            weights::fits_int8
        };
        if state.node.is_some() || !fits(&state.shape) {
            return None;
        }
        let trial = Arc::new(Trial::new(bits));
        state.trial = Some(trial.clone());
        Some(trial)
    }

    pub(crate) fn trial(&self) -> Option<Arc<Trial>> {
        self.read().trial.clone()
    }

    /// Another parameter of the same value.
    pub(crate) fn copy(&self) -> Self {
        Self::new(self.read().wide())
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

    /// Says that this is the weight of a convolution that keeps the picture's size. If it is 3x3 and wide enough, products on the
    /// CPU are made of sums of bf16 weights, whatever the picture's size.
    pub fn sums_weights(&self) {
        let mut state = self.write();
        state.summed = winograd::suits_weight(&state.shape);
    }

    pub(crate) fn is_summed(&self) -> bool {
        self.read().summed
    }

    /// Replaces the value (same shape); packed forms are rebuilt at the next use.
    pub fn set(&self, tensor: &Tensor) {
        let mut state = self.write();
        assert_eq!(state.shape, tensor.shape(), "a parameter keeps its shape");
        state.replace(Value::Wide(tensor.detach()));
    }

    /// Takes the value from where it is stored, part by part, and keeps it as `keep` says; on an error it stays as it was.
    pub fn fill<V: Values + ?Sized>(&self, values: &V, keep: Keep) -> Result<(), V::Error> {
        let shape = self.shape();
        let len = shape.iter().product();
        let bits = match keep {
            Keep::Stored(_) => None,
            Keep::Packed(_) | Keep::Summed(_) => values.bits(),
            Keep::Int8 => values.bits().or(Some(8)),
        };
        let keep = if keep == Keep::Int8 {
            Keep::Packed(DType::BF16)
        } else {
            keep
        };
        let keep = match keep {
            Keep::Summed(dtype) if dtype == DType::F32 || !self.is_summed() || bits.is_some() => Keep::Packed(dtype),
            keep => keep,
        };
        let value = match keep {
            Keep::Summed(_) => Value::Packed(Arc::new(winograd::pack(&shape, values)?)),
            _ if bits == Some(4) && weights::fits_int4(&shape) => {
                Value::Packed(Arc::new(weights::pack_int4(&shape, values)?))
            }
            _ if bits.is_some() && weights::fits_int8(&shape) => {
                Value::Packed(Arc::new(weights::pack_int8(&shape, values)?))
            }
            Keep::Packed(dtype) if weights::is_weight(&shape) => {
                Value::Packed(Arc::new(weights::pack(&shape, dtype, values)?))
            }
            Keep::Stored(DType::BF16) | Keep::Packed(DType::BF16) | Keep::Int8 => {
                let mut narrow = room(len);
                in_parts(len, |part, space| {
                    narrow.extend_from_slice(values.narrow(part, space)?);
                    Ok(())
                })?;
                Value::Narrow(Words::Owned(narrow))
            }
            Keep::Stored(_) | Keep::Packed(_) => {
                let mut wide = room(len);
                in_parts(len, |part, space| {
                    wide.extend_from_slice(values.wide(part, space)?);
                    Ok(())
                })?;
                Value::Wide(Tensor::from_vec(wide, &shape))
            }
        };
        self.write().replace(value);
        Ok(())
    }

    /// Changes the values on the host, in place.
    pub fn update(&self, f: impl FnOnce(&mut [f32])) {
        self.change(|tensor| tensor.edit(f));
    }

    /// Changes the value, whose shape stays, wherever it lies: what optimizers and averages use.
    pub fn change(&self, f: impl FnOnce(&mut Tensor)) {
        let mut state = self.write();
        let mut tensor = match std::mem::replace(&mut state.value, Value::Absent(DType::F32)) {
            // The only owner, so that it is changed in place.
            Value::Wide(tensor) => tensor,
            other => {
                state.value = other;
                state.wide()
            }
        };
        f(&mut tensor);
        assert_eq!(tensor.shape(), state.shape, "a parameter keeps its shape");
        state.replace(Value::Wide(tensor));
    }

    pub fn set_trainable(&self, trainable: bool) {
        self.write().node = trainable.then(Node::leaf);
    }

    /// Another number for each value that the parameter has had: what is computed of a frozen one can be kept until it changes.
    pub fn version(&self) -> u64 {
        self.read().version
    }

    /// What tells this parameter from all others as long as one clone of it is there: clones have the same.
    pub fn id(&self) -> ParamId {
        ParamId(Arc::as_ptr(&self.inner).addr())
    }

    pub fn is_trainable(&self) -> bool {
        self.read().node.is_some()
    }

    pub(crate) fn node_id(&self) -> Option<u64> {
        self.read().node.as_ref().map(|n| n.id())
    }

    /// What the forward pass of a linear layer or a convolution multiplies with, made once per value.
    pub(crate) fn panels(&self) -> Arc<Packed> {
        if let Value::Packed(packed) = &self.read().value
            && !matches!(**packed, Packed::Winograd(_))
        {
            packed.used();
            return packed.clone();
        }
        self.packed(FORWARD, |w, dtype| {
            let Ok(packed) = weights::pack(w.shape(), dtype, w.data());
            packed
        })
    }

    /// What [`winograd`] multiplies with, made once per value unless it is the value.
    pub(crate) fn sums(&self, usage: u8) -> Arc<Packed> {
        if let Value::Packed(packed) = &self.read().value
            && matches!(**packed, Packed::Winograd(_))
        {
            packed.used();
            return packed.clone();
        }
        self.packed(usage, |w, _| {
            let Ok(packed) = winograd::pack(w.shape(), w.data());
            packed
        })
    }

    /// The packed form for `usage`, built once per value. A usage has one type.
    pub(crate) fn packed<T: Any + Send + Sync>(&self, usage: u8, pack: impl FnOnce(&Tensor, DType) -> T) -> Arc<T> {
        let find = |state: &State| {
            let found = state.packed.iter().find(|(u, _)| *u == usage)?;
            if let Some(packed) = found.1.downcast_ref::<Packed>() {
                packed.used();
            }
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
        let unpacked;
        let value = match &state.value {
            Value::Wide(tensor) => Stored::Wide(tensor),
            Value::Narrow(values) => Stored::Narrow(values),
            Value::Absent(dtype) => Stored::Absent(state.shape.iter().product(), *dtype),
            Value::Packed(_) => {
                unpacked = state.wide();
                Stored::Wide(&unpacked)
            }
        };
        let array = upload(value, &state.shape);
        state.on_device.push((device, form, array.clone()));
        array
    }
}

impl std::fmt::Debug for Param {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Param{:?}", self.shape())
    }
}
