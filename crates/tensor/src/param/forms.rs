//! A parameter's value and packed forms as bytes: what a file has to hold for another process to use them as they are.

use super::{FORWARD, Param, Value};
use crate::cpu::kernel::kernel;
use crate::cpu::pack::Words;
use crate::cpu::packed::{FormKind, Packed};
use crate::cpu::weights;
use crate::{DType, MappedBytes, Tensor};
use std::sync::Arc;

/// What a form is for, and how it lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FormTag {
    /// 0 for the value itself, and a number for each other use.
    pub usage: u8,
    pub kind: FormKind,
    /// Rows and columns of the block that panels are for; zeros for a value in the file's order.
    pub block: [usize; 2],
}

/// What stored forms depend on beside the values that they were made of: the kernels of this machine, and how panels are laid
/// out by this version.
pub fn layout() -> String {
    format!("{} {}", kernel().name, weights::LAYOUT)
}

impl Param {
    /// Calls `f` with each form that there is of the value, the value first, and with the buffers that it consists of.
    pub fn each_form<E>(&self, mut f: impl FnMut(FormTag, &[&[u8]]) -> Result<(), E>) -> Result<(), E> {
        let state = self.read();
        let plain = |kind| FormTag {
            usage: FORWARD,
            kind,
            block: [0, 0],
        };
        match &state.value {
            Value::Wide(tensor) => f(plain(FormKind::F32), &[bytemuck::cast_slice(tensor.data())])?,
            Value::Narrow(values) => f(plain(FormKind::Bf16), &[bytemuck::cast_slice(values)])?,
            Value::Packed(packed) => {
                if let Some((tag, parts)) = tagged(FORWARD, packed) {
                    f(tag, &parts)?;
                }
            }
            Value::Absent(_) => {}
        }
        for (usage, form) in &state.packed {
            // Those of another type are small and made anew; a value that is not packed has its own in place of number 0.
            if let (Some(packed), true) = (form.downcast_ref::<Packed>(), *usage != FORWARD)
                && let Some((tag, parts)) = tagged(*usage, packed)
            {
                f(tag, &parts)?;
            }
        }
        Ok(())
    }

    /// Takes forms from a mapped file in place of those that there are for the same uses. `false`, and nothing changed, if one
    /// of them is none of a parameter of this shape on this machine.
    pub fn attach(&self, forms: Vec<(FormTag, Vec<MappedBytes>)>) -> bool {
        let mut state = self.write();
        let numel: usize = state.shape.iter().product();
        let (mut value, mut packed) = (None, Vec::new());
        for (tag, parts) in forms {
            let Some(form) = Attached::new(tag, parts, &state.shape, numel) else {
                return false;
            };
            match form {
                Attached::Value(found) => value = Some(found),
                Attached::Packed(usage, found) => packed.push((usage, found)),
            }
        }
        if let Some(value) = value {
            state.replace(value);
        }
        for (usage, form) in packed {
            state.packed.retain(|(other, _)| *other != usage);
            state.packed.push((usage, Arc::new(form)));
        }
        true
    }

    /// Forgets the value and all forms of it, until it is [filled](Self::fill) or [attached](Self::attach).
    pub fn empty(&self) {
        self.write().replace(Value::Absent(DType::F32));
    }
}

fn tagged(usage: u8, packed: &Packed) -> Option<(FormTag, Vec<&[u8]>)> {
    let (kind, block, parts) = packed.parts()?;
    let block = [block.mr, block.nr];
    Some((FormTag { usage, kind, block }, parts))
}

enum Attached {
    Value(Value),
    Packed(u8, Packed),
}

impl Attached {
    fn new(tag: FormTag, mut parts: Vec<MappedBytes>, shape: &[usize], numel: usize) -> Option<Self> {
        let plain = |parts: &mut Vec<MappedBytes>, bytes: usize| {
            let part = parts.pop()?;
            (parts.is_empty() && tag.usage == FORWARD && part.bytes().len() == bytes).then_some(part)
        };
        match tag.kind {
            FormKind::F32 => {
                let part = plain(&mut parts, 4 * numel)?;
                let values: &[f32] = bytemuck::try_cast_slice(part.bytes()).ok()?;
                Some(Self::Value(Value::Wide(Tensor::from_vec(values.to_vec(), shape))))
            }
            FormKind::Bf16 => {
                let part = plain(&mut parts, 2 * numel)?;
                Some(Self::Value(Value::Narrow(Words::mapped(part)?)))
            }
            kind => {
                let packed = Packed::from_parts(kind, tag.block, parts)?;
                if tag.usage != FORWARD {
                    return Some(Self::Packed(tag.usage, packed));
                }
                weights::fits(&packed, shape).then(|| Self::Value(Value::Packed(Arc::new(packed))))
            }
        }
    }
}
