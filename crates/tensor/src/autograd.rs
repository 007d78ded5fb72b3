//! The tape. An op that has an input on the tape leaves a [`Node`] in its output that holds
//! the inputs' nodes and a closure from the output's gradient to the inputs' gradients.

use crate::cpu::elementwise as kernel;
use crate::device::gpu;
use crate::ops::Binary;
use crate::{Param, Tensor, concat_channels, narrow_channels};
use std::cell::Cell;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::LocalKey;

/// From the gradient of an output to those of the inputs.
type ToParents = Box<dyn Fn(Tensor) -> Vec<Option<Tensor>> + Send + Sync>;

/// How a node passes its gradient on.
enum Backward {
    /// Not at all: it is what gradients are asked of.
    Leaf,
    /// From its gradient to one for each parent.
    Gradients(ToParents),
    /// The forward pass again, whose nodes then do it.
    Again(Box<dyn Fn() -> Tensor + Send + Sync>),
}

pub struct Node {
    /// Grows with time, so that descending order is a reverse topological order.
    id: u64,
    parents: Vec<Option<Arc<Node>>>,
    backward: Backward,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(true) };
    static RECOMPUTING: Cell<bool> = const { Cell::new(false) };
}

impl Node {
    pub(crate) fn leaf() -> Arc<Self> {
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            parents: Vec::new(),
            backward: Backward::Leaf,
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

/// Runs `f` without recording, as inference does.
pub fn no_grad<T>(f: impl FnOnce() -> T) -> T {
    while_recording(false, f)
}

fn while_recording<T>(recording: bool, f: impl FnOnce() -> T) -> T {
    with_flag(&RECORDING, recording, f)
}

/// Runs `f` while this thread's `flag` is `value`.
fn with_flag<T>(flag: &'static LocalKey<Cell<bool>>, value: bool, f: impl FnOnce() -> T) -> T {
    /// Puts the state of before back, also when `f` unwinds (a device that fails does).
    struct Back(&'static LocalKey<Cell<bool>>, bool);
    impl Drop for Back {
        fn drop(&mut self) {
            self.0.set(self.1);
        }
    }
    let _back = Back(flag, flag.replace(value));
    f()
}

/// Runs `f`, in which [`recompute`] saves memory at the price of time, or not.
pub fn recomputing<T>(on: bool, f: impl FnOnce() -> T) -> T {
    with_flag(&RECOMPUTING, on, f)
}

/// Is it worth calling [`recompute`] here?
pub fn is_recomputing() -> bool {
    RECOMPUTING.get() && RECORDING.get()
}

/// `f()`, whose intermediate values are not kept: the backward pass runs `f` again, which has to give the same each time
/// (Chen et al. 2016, "Training deep nets with sublinear memory cost"). Gradients are the same to the bit.
pub fn recompute(f: impl Fn() -> Tensor + Send + Sync + 'static) -> Tensor {
    // Recorded although it is thrown away: ops that are not recorded may be fused, and then round otherwise.
    let recorded = f();
    let mut out = recorded.detach();
    if recorded.node.is_some() {
        out.node = Some(Arc::new(Node {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            parents: Vec::new(),
            backward: Backward::Again(Box::new(f)),
        }));
    }
    out
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
    out: Tensor,
    inputs: &[&Tensor],
    backward: impl Fn(&Tensor) -> Vec<Option<Tensor>> + Send + Sync + 'static,
) -> Tensor {
    record_owning(out, inputs, move |grad| backward(&grad))
}

/// [`record`] for what changes the gradient in place: mostly nobody else has it.
pub(crate) fn record_owning(
    mut out: Tensor,
    inputs: &[&Tensor],
    backward: impl Fn(Tensor) -> Vec<Option<Tensor>> + Send + Sync + 'static,
) -> Tensor {
    if is_recording(inputs) {
        out.node = Some(Arc::new(Node {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            parents: inputs.iter().map(|t| t.node.clone()).collect(),
            backward: Backward::Gradients(Box::new(backward)),
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
    /// Adds those of another batch. A leaf that a batch did not reach counts 0 there.
    pub fn add(&mut self, other: Self) {
        for (id, gradient) in other.by_node {
            add_to(&mut self.by_node, id, gradient);
        }
    }

    /// Multiplies all of them: a sum over batches becomes their mean.
    pub fn scale(&mut self, factor: f32) {
        if factor == 1.0 {
            return;
        }
        for gradient in self.by_node.values_mut() {
            match gpu() {
                Some(gpu) => *gradient = gpu.affine(gradient, factor, 0.0),
                None => gradient.edit(|values| kernel::scale(values, factor)),
            }
        }
    }

    /// Replaces the gradients of `params` by what `f` makes of them, laid end to end in pieces `[n]` of about `bucket` values.
    /// Parameters without a gradient are left out.
    pub fn in_buckets<E>(
        &mut self,
        params: &[&Param],
        bucket: usize,
        mut f: impl FnMut(Tensor) -> Result<Tensor, E>,
    ) -> Result<(), E> {
        let ids: Vec<u64> = params.iter().filter_map(|p| p.node_id()).collect();
        let reached: Vec<u64> = ids.into_iter().filter(|id| self.by_node.contains_key(id)).collect();
        let mut rest = reached.as_slice();
        while !rest.is_empty() {
            let mut values = 0;
            let fits = |id: &&u64| {
                values += self.by_node[id].numel();
                values <= bucket
            };
            let (these, others) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            rest = others;
            let flat: Vec<Tensor> = these.iter().map(|id| flat(&self.by_node[id])).collect();
            let joined = f(concat_channels(&flat.iter().collect::<Vec<_>>()))?;
            let mut start = 0;
            for id in these {
                let shape = self.by_node[id].shape().to_vec();
                let len = shape.iter().product();
                let part = narrow_channels(&joined, start, len).reshape(&shape);
                self.by_node.insert(*id, part);
                start += len;
            }
        }
        Ok(())
    }
}

fn flat(tensor: &Tensor) -> Tensor {
    tensor.reshape(&[tensor.numel()])
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

/// The gradients known so far, and the nodes that have to pass theirs on, the latest first.
#[derive(Default)]
struct Pass {
    by_node: HashMap<u64, Tensor>,
    queued: HashSet<u64>,
    queue: BinaryHeap<ById>,
}

impl Pass {
    /// Adds to the gradient of `node`.
    fn give(&mut self, node: &Arc<Node>, grad: Tensor) {
        add_to(&mut self.by_node, node.id, grad);
        if self.queued.insert(node.id) {
            self.queue.push(ById(node.clone()));
        }
    }

    fn run(&mut self) {
        while let Some(ById(node)) = self.queue.pop() {
            if matches!(node.backward, Backward::Leaf) {
                continue;
            }
            let Some(grad) = self.by_node.remove(&node.id) else {
                continue;
            };
            match &node.backward {
                Backward::Leaf => {}
                Backward::Gradients(backward) => {
                    for (parent, grad) in node.parents.iter().zip(backward(grad)) {
                        if let (Some(parent), Some(grad)) = (parent, grad) {
                            self.give(parent, grad);
                        }
                    }
                }
                // The new nodes are later than any that wait: they come next, in the order in which those of the first time
                // would have come, and hand on the same sums.
                Backward::Again(forward) => {
                    if let Some(node) = while_recording(true, forward).node {
                        self.give(&node, grad);
                    }
                }
            }
        }
    }
}

pub(crate) fn backward(loss: &Tensor) -> Gradients {
    assert_eq!(
        loss.numel(),
        1,
        "backward() starts at a scalar, shape is {:?}",
        loss.shape()
    );
    let mut pass = Pass::default();
    if let Some(root) = &loss.node {
        let one = match gpu() {
            Some(gpu) => gpu.full(1.0, loss.shape()),
            None => Tensor::full(1.0, loss.shape()),
        };
        pass.give(root, one);
        no_grad(|| pass.run());
    }
    Gradients { by_node: pass.by_node }
}

/// Adds to the gradient of node `id`, which may have none yet.
fn add_to(by_node: &mut HashMap<u64, Tensor>, id: u64, grad: Tensor) {
    let sum = match by_node.remove(&id) {
        Some(before) => accumulate(before, &grad),
        None => grad,
    };
    by_node.insert(id, sum);
}

fn accumulate(into: Tensor, from: &Tensor) -> Tensor {
    assert_eq!(into.shape(), from.shape(), "gradients of one tensor differ in shape");
    if let Some(gpu) = gpu() {
        return gpu.binary(Binary::Add, &into, from);
    }
    let shape = into.shape().to_vec();
    let mut sum = into.into_vec();
    kernel::add_to(&mut sum, from.data());
    Tensor::from_vec(sum, &shape)
}
