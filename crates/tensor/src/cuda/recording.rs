//! Work of a fixed shape that is recorded once and then replayed (a CUDA graph): a network's step is thousands of small launches,
//! and asking for each takes the CPU longer than the GPU needs for it.
//!
//! The first run with given shapes is a plain one: it chooses algorithms, moves parameters and fills the allocator. The second
//! is recorded, later ones are replays. What the work allocates while it is recorded stays the recording's own; its inputs are
//! copied to where it looks for them, its output is copied out. A recording is dropped when a parameter that it reads was
//! replaced, when its owner goes, when newer ones need its place and when memory is short.

use super::error::{DeviceError, fail};
use super::gpu::Gpu;
use super::memory::{Array, Pool, Reserve};
use crate::{DType, Tensor, device};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// How many recordings a device keeps: their memory adds up.
const MOST_KEPT: usize = 4;

/// After that many recordings that came to nothing, the work is done plainly for good.
const MOST_FAILURES: u8 = 3;

/// What was recorded and replayed on a device so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordingCounts {
    pub recorded: usize,
    pub replayed: usize,
    /// Recordings that came to nothing; the work was then done plainly.
    pub failed: usize,
    /// Recordings that are kept now.
    pub kept: usize,
}

/// Whose work it is, and its inputs' shapes and types.
struct Key {
    owner: Weak<()>,
    inputs: Vec<(Vec<usize>, DType)>,
}

impl Key {
    fn is(&self, other: &Self) -> bool {
        self.owner.ptr_eq(&other.owner) && self.inputs == other.inputs
    }
}

enum Entry {
    /// Was done plainly, so that it can be recorded now.
    Warm {
        failures: u8,
    },
    Recorded(Recording),
}

#[derive(Default)]
pub(super) struct Recordings {
    /// Most recently used last.
    entries: Mutex<Vec<(Key, Entry)>>,
    counts: Mutex<RecordingCounts>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recordings {
    /// The entry, which belongs to the caller until it is [`put`](Self::put) back: meanwhile others do the work plainly.
    fn take(&self, key: &Key) -> Option<Entry> {
        let mut entries = lock(&self.entries);
        entries.retain(|(key, _)| key.owner.strong_count() > 0);
        let place = entries.iter().position(|(known, _)| known.is(key))?;
        Some(entries.remove(place).1)
    }

    fn put(&self, key: Key, entry: Entry) {
        let mut entries = lock(&self.entries);
        if let Some(place) = entries.iter().position(|(known, _)| known.is(&key)) {
            let (_, other) = entries.remove(place);
            let keep_other = matches!((&other, &entry), (Entry::Recorded(_), Entry::Warm { .. }));
            entries.push((key, if keep_other { other } else { entry }));
        } else {
            entries.push((key, entry));
        }
        let recorded = |entry: &Entry| matches!(entry, Entry::Recorded(_));
        while entries.iter().filter(|(_, e)| recorded(e)).count() > MOST_KEPT {
            if let Some(oldest) = entries.iter().position(|(_, e)| recorded(e)) {
                entries.remove(oldest);
            }
        }
        // Shapes that were met once cost a few bytes each; forget them rather than hoard them.
        if entries.len() > 16 * MOST_KEPT
            && let Some(oldest) = entries.iter().position(|(_, e)| !recorded(e))
        {
            entries.remove(oldest);
        }
    }

    /// Drops all that nobody is using right now.
    pub fn clear(&self) {
        let dropped = std::mem::take(&mut *lock(&self.entries));
        drop(dropped);
    }

    pub fn counts(&self) -> RecordingCounts {
        let entries = lock(&self.entries);
        let kept = entries.iter().filter(|(_, e)| matches!(e, Entry::Recorded(_))).count();
        RecordingCounts {
            kept,
            ..*lock(&self.counts)
        }
    }
}

/// Recorded work and the memory that it needs.
struct Recording {
    pool: Arc<Pool>,
    number: u64,
    inputs: Vec<Arc<Array>>,
    output: Arc<Array>,
    shape: Vec<usize>,
    reserve: Arc<Reserve>,
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.pool.backend().forget(self.number);
    }
}

/// Why there is no recording.
enum NotRecorded<E> {
    /// The work itself ended early.
    Work(E),
    /// The device cannot record, or is at it for another thread.
    Busy,
    /// It has to be done plainly.
    Plainly,
}

/// Ends a recording that its work does not bring to an end.
struct Open<'a> {
    gpu: &'a Gpu,
    noting: bool,
}

impl Open<'_> {
    /// What was noted.
    fn close(mut self) -> Result<u64, DeviceError> {
        self.noting = false;
        self.gpu.backend().end_recording()
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.noting
            && let Ok(number) = self.gpu.backend().end_recording()
        {
            self.gpu.backend().forget(number);
        }
        self.gpu.pool().end_recording();
    }
}

impl Gpu {
    /// `work(inputs)`, by replay where it was recorded. The work must do the same for all inputs of the same shapes, and read
    /// nothing else that changes, parameters excepted.
    pub fn repeat<E>(
        &self,
        owner: &Arc<()>,
        inputs: &[&Tensor],
        work: &mut dyn FnMut(&[Tensor]) -> Result<Tensor, E>,
    ) -> Result<Tensor, E> {
        let key = Key {
            owner: Arc::downgrade(owner),
            inputs: inputs.iter().map(|t| (t.shape().to_vec(), self.own_dtype(t))).collect(),
        };
        let plainly = |work: &mut dyn FnMut(&[Tensor]) -> Result<Tensor, E>| {
            let inputs: Vec<Tensor> = inputs.iter().map(|input| (*input).clone()).collect();
            work(&inputs)
        };
        let entry = self.recordings().take(&key);
        match entry {
            Some(Entry::Recorded(recording)) => {
                if let Some(_weights) = recording.reserve.weights() {
                    let out = self.replay(&recording, inputs);
                    self.recordings().put(key, Entry::Recorded(recording));
                    return Ok(out);
                }
                // A parameter was replaced: its new value has to be moved, which is not recorded.
                drop(recording);
                let out = plainly(work)?;
                self.recordings().put(key, Entry::Warm { failures: 0 });
                Ok(out)
            }
            Some(Entry::Warm { failures }) if failures < MOST_FAILURES => match self.record(inputs, work) {
                Ok(recording) => {
                    let out = self.replay(&recording, inputs);
                    self.recordings().put(key, Entry::Recorded(recording));
                    Ok(out)
                }
                Err(NotRecorded::Work(error)) => {
                    self.recordings().put(key, Entry::Warm { failures });
                    Err(error)
                }
                Err(NotRecorded::Busy) => {
                    self.recordings().put(key, Entry::Warm { failures });
                    plainly(work)
                }
                Err(NotRecorded::Plainly) => {
                    lock(&self.recordings().counts).failed += 1;
                    let failures = failures + 1;
                    self.recordings().put(key, Entry::Warm { failures });
                    plainly(work)
                }
            },
            known => {
                let out = plainly(work)?;
                self.recordings().put(key, known.unwrap_or(Entry::Warm { failures: 0 }));
                Ok(out)
            }
        }
    }

    /// The type in which an input lies where the work looks for it.
    fn own_dtype(&self, tensor: &Tensor) -> DType {
        let array = tensor.array().filter(|array| array.is_in(self.pool()));
        array.map_or(DType::F32, |array| array.dtype())
    }

    fn record<E>(
        &self,
        inputs: &[&Tensor],
        work: &mut dyn FnMut(&[Tensor]) -> Result<Tensor, E>,
    ) -> Result<Recording, NotRecorded<E>> {
        // Made before, so that they are not of the recording's own memory, which it reuses.
        let fixed = device::catch(|| -> Vec<Arc<Array>> {
            let place = |t: &&Tensor| Arc::new(self.empty(t.numel(), self.own_dtype(t)));
            inputs.iter().map(place).collect()
        });
        let fixed = fixed.map_err(|_| NotRecorded::Plainly)?;
        let Some(reserve) = self.pool().begin_recording() else {
            return Err(NotRecorded::Busy);
        };
        let mut open = Open {
            gpu: self,
            noting: false,
        };
        open.noting = self.backend().begin_recording().map_err(|_| NotRecorded::Plainly)?;
        if !open.noting {
            return Err(NotRecorded::Busy);
        }
        let tensors: Vec<Tensor> = fixed
            .iter()
            .zip(inputs)
            .map(|(array, input)| Tensor::from_shared(array.clone(), input.shape()))
            .collect();
        let done = device::catch(|| work(&tensors));
        let out = match done {
            Ok(Ok(out)) => out,
            Ok(Err(error)) => return Err(NotRecorded::Work(error)),
            Err(_) => return Err(NotRecorded::Plainly),
        };
        let number = open.close().map_err(|_| NotRecorded::Plainly)?;
        let Some(output) = out.array().cloned() else {
            self.backend().forget(number);
            return Err(NotRecorded::Plainly);
        };
        lock(&self.recordings().counts).recorded += 1;
        Ok(Recording {
            pool: self.pool().clone(),
            number,
            inputs: fixed,
            output,
            shape: out.shape().to_vec(),
            reserve,
        })
    }

    fn replay(&self, recording: &Recording, inputs: &[&Tensor]) -> Tensor {
        let out = self.try_replay(recording, inputs).unwrap_or_else(|error| fail(error));
        lock(&self.recordings().counts).replayed += 1;
        Tensor::from_array(out, &recording.shape)
    }

    fn try_replay(&self, recording: &Recording, inputs: &[&Tensor]) -> Result<Array, DeviceError> {
        let out = self.empty(recording.output.len(), recording.output.dtype());
        for (place, input) in recording.inputs.iter().zip(inputs) {
            let bytes = place.len() * place.dtype().size();
            match input.array().filter(|array| array.is_in(self.pool())) {
                // SAFETY: both are arrays of this length and type; the place is the recording's alone.
                Some(array) => unsafe { self.backend().copy(array.address(), place.address(), bytes) }?,
                // SAFETY: the place is an f32 array of this length.
                None => unsafe { self.pool().upload(bytemuck::cast_slice(input.data()), place.address()) }?,
            }
        }
        let bytes = out.len() * out.dtype().size();
        // SAFETY: the recording keeps its memory, the caller its parameters; the output has this many bytes.
        unsafe {
            self.backend().replay(recording.number)?;
            self.backend().copy(recording.output.address(), out.address(), bytes)?;
        }
        Ok(out)
    }
}

/// Work that a GPU may record and replay: one for each thing that is done again and again.
#[derive(Debug, Default)]
pub struct Repeatable {
    owner: Arc<()>,
}

impl Repeatable {
    /// `work(inputs)`. On a GPU, off the tape, it may be a replay of what the work did before for inputs of the same shapes: it
    /// must do the same each time, and read nothing else that changes, parameters excepted.
    pub fn run<E>(
        &self,
        inputs: &[&Tensor],
        mut work: impl FnMut(&[Tensor]) -> Result<Tensor, E>,
    ) -> Result<Tensor, E> {
        match device::gpu().filter(|_| !crate::autograd::is_on()) {
            Some(gpu) => gpu.repeat(&self.owner, inputs, &mut work),
            None => work(&inputs.iter().map(|input| (*input).clone()).collect::<Vec<_>>()),
        }
    }
}
