use crate::Tensor;
use crate::autograd::Node;
use std::sync::{Arc, RwLock};

/// A parameter of a network: a tensor in the file's layout plus, once used, its packed form.
/// Clones share the value. Frozen unless [`Param::set_trainable`] is called.
#[derive(Clone)]
pub struct Param {
    inner: Arc<RwLock<State>>,
}

struct State {
    tensor: Tensor,
    /// `Packed` weights by use ("forward", "backward"), dropped when the value changes.
    packed: Vec<(u8, Arc<Vec<f32>>)>,
    node: Option<Arc<Node>>,
}

impl Param {
    pub fn new(tensor: Tensor) -> Self {
        Self {
            inner: Arc::new(RwLock::new(State {
                tensor: tensor.detach(),
                packed: Vec::new(),
                node: None,
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
        self.read().tensor.shape().to_vec()
    }

    pub fn numel(&self) -> usize {
        self.read().tensor.numel()
    }

    /// The value; on the tape if the parameter is trainable.
    pub fn tensor(&self) -> Tensor {
        let state = self.read();
        let mut tensor = state.tensor.clone();
        tensor.node.clone_from(&state.node);
        tensor
    }

    /// Replaces the value (same shape); packed forms are rebuilt at the next use.
    pub fn set(&self, tensor: &Tensor) {
        let mut state = self.write();
        assert_eq!(state.tensor.shape(), tensor.shape(), "a parameter keeps its shape");
        state.tensor = tensor.detach();
        state.packed.clear();
    }

    /// Changes the values in place: what optimizers and EMA use.
    pub fn update(&self, f: impl FnOnce(&mut [f32])) {
        let mut state = self.write();
        state.packed.clear();
        let shape = state.tensor.shape().to_vec();
        let mut data = std::mem::replace(&mut state.tensor, Tensor::scalar(0.0)).into_vec();
        f(&mut data);
        state.tensor = Tensor::from_vec(data, &shape);
    }

    pub fn set_trainable(&self, trainable: bool) {
        self.write().node = trainable.then(Node::leaf);
    }

    pub fn is_trainable(&self) -> bool {
        self.read().node.is_some()
    }

    pub(crate) fn node_id(&self) -> Option<u64> {
        self.read().node.as_ref().map(|n| n.id())
    }

    /// The packed form for `usage`, built once per value.
    pub(crate) fn packed(&self, usage: u8, pack: impl FnOnce(&Tensor) -> Vec<f32>) -> Arc<Vec<f32>> {
        if let Some((_, packed)) = self.read().packed.iter().find(|(u, _)| *u == usage) {
            return packed.clone();
        }
        let mut state = self.write();
        if let Some((_, packed)) = state.packed.iter().find(|(u, _)| *u == usage) {
            return packed.clone();
        }
        let packed = Arc::new(pack(&state.tensor));
        state.packed.push((usage, packed.clone()));
        packed
    }
}

impl std::fmt::Debug for Param {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Param{:?}", self.shape())
    }
}
