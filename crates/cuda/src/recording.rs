//! Work of a fixed shape that is recorded once and then replayed (a CUDA graph): a network's step is thousands of small launches,
//! and asking for each takes the CPU longer than the GPU needs for it.
//!
//! The first run with given shapes is a plain one: it chooses algorithms, moves parameters and fills the allocator. The second
//! is recorded, later ones are replays. What the work allocates while it is recorded stays the recording's own; its inputs are
//! copied to where it looks for them, its output is copied out. A recording is dropped when a parameter that it reads was
//! replaced, when its owner goes, when newer ones need its place and when memory is short.

use crate::error::CudaError;
use crate::gpu::CudaGpu;
use crate::memory::{Array, Pool, Reserve, array_of, tensor};
use prima_tensor::device::{self, fail};
use prima_tensor::gpu::{DeviceArray, RecordingCounts, Work};
use prima_tensor::{DType, DeviceError, Tensor};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// How many recordings a device keeps: their memory adds up.
const MOST_KEPT: usize = 4;

/// After that many recordings that came to nothing, the work is done plainly for good.
const MOST_FAILURES: u8 = 3;

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
pub(crate) struct Recordings {
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
    pub(crate) fn clear(&self) {
        let dropped = std::mem::take(&mut *lock(&self.entries));
        drop(dropped);
    }

    pub(crate) fn counts(&self) -> RecordingCounts {
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
enum NotRecorded {
    /// The work itself ended early.
    Work,
    /// The device cannot record, or is at it for another thread.
    Busy,
    /// It has to be done plainly.
    Plainly,
}

/// Ends a recording that its work does not bring to an end.
struct Open<'a> {
    gpu: &'a CudaGpu,
    noting: bool,
}

impl Open<'_> {
    /// What was noted.
    fn close(mut self) -> Result<u64, CudaError> {
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

impl CudaGpu {
    /// See [`Gpu::repeat`](prima_tensor::gpu::Gpu::repeat).
    pub(crate) fn replay_or_record(&self, owner: &Arc<()>, inputs: &[&Tensor], work: Work) -> Option<Tensor> {
        let key = Key {
            owner: Arc::downgrade(owner),
            inputs: inputs.iter().map(|t| (t.shape().to_vec(), self.own_dtype(t))).collect(),
        };
        let plainly = |work: Work| {
            let inputs: Vec<Tensor> = inputs.iter().map(|input| (*input).clone()).collect();
            work(&inputs)
        };
        let entry = self.recordings().take(&key);
        match entry {
            Some(Entry::Recorded(recording)) => {
                if let Some(_weights) = recording.reserve.weights() {
                    let out = self.replay(&recording, inputs);
                    self.recordings().put(key, Entry::Recorded(recording));
                    return Some(out);
                }
                // A parameter was replaced: its new value has to be moved, which is not recorded.
                drop(recording);
                let out = plainly(work)?;
                self.recordings().put(key, Entry::Warm { failures: 0 });
                Some(out)
            }
            Some(Entry::Warm { failures }) if failures < MOST_FAILURES => match self.record(inputs, work) {
                Ok(recording) => {
                    let out = self.replay(&recording, inputs);
                    self.recordings().put(key, Entry::Recorded(recording));
                    Some(out)
                }
                Err(NotRecorded::Work) => {
                    self.recordings().put(key, Entry::Warm { failures });
                    None
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
                Some(out)
            }
        }
    }

    /// The type in which an input lies where the work looks for it.
    fn own_dtype(&self, tensor: &Tensor) -> DType {
        self.own_array(tensor).map_or(DType::F32, |array| array.dtype())
    }

    fn record(&self, inputs: &[&Tensor], work: Work) -> Result<Recording, NotRecorded> {
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
            .map(|(array, input)| Tensor::from_array(array.clone(), input.shape()))
            .collect();
        let done = device::catch(|| work(&tensors));
        let out = match done {
            Ok(Some(out)) => out,
            Ok(None) => return Err(NotRecorded::Work),
            Err(_) => return Err(NotRecorded::Plainly),
        };
        let number = open.close().map_err(|_| NotRecorded::Plainly)?;
        let Some(output) = array_of(&out) else {
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
        tensor(out, &recording.shape)
    }

    fn try_replay(&self, recording: &Recording, inputs: &[&Tensor]) -> Result<Array, DeviceError> {
        let out = self.empty(recording.output.len(), recording.output.dtype());
        for (place, input) in recording.inputs.iter().zip(inputs) {
            let bytes = place.len() * place.dtype().size();
            match self.own_array(input) {
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
