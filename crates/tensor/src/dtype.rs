/// Storage type of a tensor's elements. Activations are `f32`; weights may be kept in bf16
/// ([`Param::narrow_to_bf16`](crate::Param::narrow_to_bf16)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    F32,
    BF16,
    F16,
}

impl DType {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::BF16 | Self::F16 => 2,
        }
    }
}
