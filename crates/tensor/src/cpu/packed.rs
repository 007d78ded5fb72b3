//! A weight as products read it, of any kind, and what it is as bytes.

use crate::DType;
use crate::cpu::bf16;
use crate::cpu::int4::Int4Panels;
use crate::cpu::kernel::{Block, Pair, Quad, kernel};
use crate::cpu::pack::{Aligned, Panels, Words};
use crate::mapped::MappedBytes;
use rayon::prelude::*;

/// A packed right matrix of any kind.
pub(crate) enum Packed {
    F32(Panels<f32>),
    Bf16(Panels<Pair>),
    /// The sixteen matrices of [`winograd`](crate::cpu::winograd).
    Winograd(Panels<Pair>),
    Int8(Panels<Quad>),
    Int4(Int4Panels),
}

impl Packed {
    /// What its value is rounded to where it is not multiplied: fewer bits are for products.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::Bf16(_) | Self::Winograd(_) | Self::Int8(_) | Self::Int4(_) => DType::BF16,
        }
    }

    /// `values`, of depth `k`; anything but f32 becomes bf16.
    pub fn new(values: Panels<f32>, k: usize, dtype: DType) -> Self {
        if dtype == DType::F32 || k == 0 {
            return Self::F32(values);
        }
        let nr = values.block.nr;
        let half = k.div_ceil(2);
        let mut words = Aligned::zeroed(values.words.len() / k * half);
        words
            .par_chunks_exact_mut(half * nr)
            .zip(values.words.par_chunks_exact(k * nr))
            .for_each(|(out, panel)| bf16::pair_depths(panel, nr, out));
        Self::Bf16(Panels {
            block: values.block,
            words: words.into(),
        })
    }

    /// They are about to be multiplied with.
    pub fn used(&self) {
        match self {
            Self::F32(panels) => panels.words.used(),
            Self::Bf16(panels) | Self::Winograd(panels) => panels.words.used(),
            Self::Int8(_) | Self::Int4(_) => {}
        }
    }

    /// What it is made of, as bytes: see [`from_parts`](Self::from_parts). `None` of quantized weights, whose files are as small
    /// as their panels.
    pub fn parts(&self) -> Option<(FormKind, &'static Block, Vec<&[u8]>)> {
        match self {
            Self::F32(panels) => Some((
                FormKind::PanelsF32,
                panels.block,
                vec![bytemuck::cast_slice(&panels.words)],
            )),
            Self::Bf16(panels) => Some((
                FormKind::PanelsBf16,
                panels.block,
                vec![bytemuck::cast_slice(&panels.words)],
            )),
            Self::Winograd(panels) => Some((
                FormKind::WinogradBf16,
                panels.block,
                vec![bytemuck::cast_slice(&panels.words)],
            )),
            Self::Int8(_) | Self::Int4(_) => None,
        }
    }

    /// The same of bytes in a mapped file; `None` if they are not those of a kind and block that this machine has.
    pub fn from_parts(kind: FormKind, [mr, nr]: [usize; 2], parts: Vec<MappedBytes>) -> Option<Self> {
        let block = kernel().blocks.iter().find(|block| (block.mr, block.nr) == (mr, nr))?;
        let [words] = <[MappedBytes; 1]>::try_from(parts).ok()?;
        Some(match kind {
            FormKind::PanelsF32 => Self::F32(Panels {
                block,
                words: Words::mapped(words)?,
            }),
            FormKind::PanelsBf16 => Self::Bf16(Panels {
                block,
                words: Words::mapped(words)?,
            }),
            FormKind::WinogradBf16 => Self::Winograd(Panels {
                block,
                words: Words::mapped(words)?,
            }),
            FormKind::F32 | FormKind::Bf16 => return None,
        })
    }
}

/// What the bytes of a stored form are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FormKind {
    /// The value, in the file's order.
    F32,
    Bf16,
    /// Panels of products.
    PanelsF32,
    PanelsBf16,
    /// Panels of a convolution's sixteen matrices.
    WinogradBf16,
}

impl FormKind {
    pub const ALL: [Self; 5] = [
        Self::F32,
        Self::Bf16,
        Self::PanelsF32,
        Self::PanelsBf16,
        Self::WinogradBf16,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::PanelsF32 => "panels of f32",
            Self::PanelsBf16 => "panels of bf16",
            Self::WinogradBf16 => "matrices of bf16",
        }
    }
}
