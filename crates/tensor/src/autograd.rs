//! The tape. An op that has an input on the tape leaves a [`Node`] in its output that holds
//! the inputs' nodes and a closure from the output's gradient to the inputs' gradients.

use crate::cpu::parallel::for_chunks;
use crate::cuda::Binary;
use crate::device::gpu;
use crate::{Param, Tensor};
use rayon::prelude::*;
use std::cell::Cell;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

type Backward = Box<dyn Fn(&Tensor) -> Vec<Option<Tensor>> + Send + Sync>;

pub struct Node {
    /// Grows with time, so that descending order is a reverse topological order.
    id: u64,
    parents: Vec<Option<Arc<Node>>>,
    backward: Option<Backward>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(true) };
}

impl Node {
    pub(crate) fn leaf() -> Arc<Self> {
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            parents: Vec::new(),
            backward: None,
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

/// Runs `f` without recording, as inference does.
pub fn no_grad<T>(f: impl FnOnce() -> T) -> T {
    /// Puts the state of before back, also when `f` unwinds (a device that fails does).
    struct Back(bool);
    impl Drop for Back {
        fn drop(&mut self) {
            RECORDING.set(self.0);
        }
    }
    let _back = Back(RECORDING.replace(false));
    f()
}

/// Whether ops are recorded at all: not inside [`no_grad`].
pub(crate) fn is_on() -> bool {
    RECORDING.get()
}

/// Would an op on these inputs be recorded?
pub fn is_recording(inputs: &[&Tensor]) -> bool {
    RECORDING.get() && inputs.iter().any(|t| t.node.is_some())
}

/// Attaches `backward` to `out` if any of `inputs` is on the tape.
/// `backward` maps the gradient of `out` to one optional gradient per input.
pub(crate) fn record(
    mut out: Tensor,
    inputs: &[&Tensor],
    backward: impl Fn(&Tensor) -> Vec<Option<Tensor>> + Send + Sync + 'static,
) -> Tensor {
    if is_recording(inputs) {
        out.node = Some(Arc::new(Node {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            parents: inputs.iter().map(|t| t.node.clone()).collect(),
            backward: Some(Box::new(backward)),
        }));
    }
    out
}

/// Gradients of one scalar, by leaf.
#[derive(Default)]
pub struct Gradients {
    by_node: HashMap<u64, Tensor>,
}

impl Gradients {
    /// The gradient of a leaf made by [`Tensor::requires_grad`].
    pub fn get(&self, leaf: &Tensor) -> Option<&Tensor> {
        self.by_node.get(&leaf.node.as_ref()?.id())
    }

    /// The gradient of a trainable parameter, in the parameter's own layout.
    pub fn param(&self, param: &Param) -> Option<&Tensor> {
        self.by_node.get(&param.node_id()?)
    }
}

impl Gradients {
    /// The mean over several batches. A leaf that a batch did not reach counts 0 there.
    pub fn mean(mut batches: Vec<Self>) -> Self {
        if batches.len() == 1 {
            return batches.swap_remove(0);
        }
        let scale = 1.0 / batches.len().max(1) as f32;
        let mut by_leaf: HashMap<u64, Vec<Tensor>> = HashMap::new();
        for (id, gradient) in batches.into_iter().flat_map(|b| b.by_node) {
            by_leaf.entry(id).or_default().push(gradient);
        }
        let mean = |(id, all): (u64, Vec<Tensor>)| {
            let mut all = all.into_iter();
            let first = all.next()?;
            let shape = first.shape().to_vec();
            let mut sum = first.into_vec();
            for other in all {
                for (s, g) in sum.iter_mut().zip(other.data()) {
                    *s += g;
                }
            }
            if scale < 1.0 {
                for s in &mut sum {
                    *s *= scale;
                }
            }
            Some((id, Tensor::from_vec(sum, &shape)))
        };
        Self {
            by_node: by_leaf.into_par_iter().filter_map(mean).collect(),
        }
    }
}

struct ById(Arc<Node>);
impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}
impl Eq for ById {}
impl PartialOrd for ById {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for ById {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

pub(crate) fn backward(loss: &Tensor) -> Gradients {
    assert_eq!(
        loss.numel(),
        1,
        "backward() starts at a scalar, shape is {:?}",
        loss.shape()
    );
    let mut by_node = HashMap::new();
    let Some(root) = &loss.node else {
        return Gradients { by_node };
    };
    let one = match gpu() {
        Some(gpu) => gpu.full(1.0, loss.shape()),
        None => Tensor::full(1.0, loss.shape()),
    };
    by_node.insert(root.id, one);
    let mut queued = std::collections::HashSet::from([root.id]);
    let mut queue = BinaryHeap::from([ById(root.clone())]);
    no_grad(|| {
        while let Some(ById(node)) = queue.pop() {
            let Some(backward) = &node.backward else { continue };
            let Some(grad) = by_node.remove(&node.id) else { continue };
            for (parent, grad) in node.parents.iter().zip(backward(&grad)) {
                let (Some(parent), Some(grad)) = (parent, grad) else {
                    continue;
                };
                let sum = match by_node.remove(&parent.id) {
                    Some(before) => accumulate(before, &grad),
                    None => grad,
                };
                by_node.insert(parent.id, sum);
                if queued.insert(parent.id) {
                    queue.push(ById(parent.clone()));
                }
            }
        }
    });
    Gradients { by_node }
}

fn accumulate(into: Tensor, from: &Tensor) -> Tensor {
    assert_eq!(into.shape(), from.shape(), "gradients of one tensor differ in shape");
    if let Some(gpu) = gpu() {
        return gpu.binary(Binary::Add, &into, from);
    }
    let shape = into.shape().to_vec();
    let mut sum = into.into_vec();
    for_chunks(&mut sum, |at, part| {
        for (a, b) in part.iter_mut().zip(&from.data()[at..]) {
            *a += b;
        }
    });
    Tensor::from_vec(sum, &shape)
}
