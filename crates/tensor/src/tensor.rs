use crate::autograd::{self, Node};
use std::sync::Arc;

/// An immutable, contiguous, row-major array of `f32`. Cloning and reshaping share storage.
#[derive(Clone)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Arc<Vec<f32>>,
    pub(crate) node: Option<Arc<Node>>,
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
            data: Arc::new(data),
            node: None,
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
        self.data.len()
    }

    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The values, without a copy when this is the only owner.
    pub fn into_vec(self) -> Vec<f32> {
        Arc::try_unwrap(self.data).unwrap_or_else(|shared| shared.as_ref().clone())
    }

    /// The single value of a scalar tensor.
    pub fn item(&self) -> f32 {
        assert_eq!(self.numel(), 1, "item() wants one value, shape is {:?}", self.shape);
        self.data[0]
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
            data: self.data.clone(),
            node: None,
        };
        let from = self.shape.clone();
        autograd::record(out, &[self], move |g| vec![Some(g.reshape(&from))])
    }

    /// The same values cut off from the tape (stop-gradient).
    pub fn detach(&self) -> Self {
        Self {
            shape: self.shape.clone(),
            data: self.data.clone(),
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
        let head: Vec<f32> = self.data.iter().take(8).copied().collect();
        write!(f, "Tensor{:?} {head:?}", self.shape)
    }
}
