//! The three float types of weights, and rounding between them.
//! Knows nothing of matrices.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// An element type of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are IEEE's and the field's")]
pub enum Float {
    F16,
    Bf16,
    F32,
}

impl Float {
    /// Returns the size of an element in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }

    /// Rounds to this type, half to even, and back.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F16 => f16::from_f32(value).to_f32(),
            Self::Bf16 => bf16::from_f32(value).to_f32(),
            Self::F32 => value,
        }
    }

    /// Reads little-endian elements of this type; `values` has one place for each.
    pub fn decode(self, bytes: &[u8], values: &mut [f32]) {
        match self {
            Self::F16 => halves(bytes, f16::from_le_bytes).convert_to_f32_slice(values),
            Self::Bf16 => halves(bytes, bf16::from_le_bytes).convert_to_f32_slice(values),
            Self::F32 => {
                for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
        }
    }

    /// Rounds `values` to this type and writes them little-endian; `bytes` has room for each.
    pub fn encode(self, values: &[f32], bytes: &mut [u8]) {
        match self {
            Self::F16 => {
                for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                    *bytes = f16::from_f32(*value).to_le_bytes();
                }
            }
            Self::Bf16 => {
                for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                    *bytes = bf16::from_f32(*value).to_le_bytes();
                }
            }
            Self::F32 => {
                for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                    *bytes = value.to_le_bytes();
                }
            }
        }
    }
}

fn halves<T>(bytes: &[u8], read: impl Fn([u8; 2]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|bytes| read(*bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_half_survives(bits in any::<u16>()) {
            for (float, value) in [(Float::F16, f16::from_bits(bits).to_f32()), (Float::Bf16, bf16::from_bits(bits).to_f32())] {
                prop_assume!(!value.is_nan());
                let mut values = [0.0];
                float.decode(&bits.to_le_bytes(), &mut values);
                let mut bytes = [0; 2];
                float.encode(&values, &mut bytes);
                prop_assert_eq!(u16::from_le_bytes(bytes), bits);
                prop_assert_eq!(float.round(value).to_bits(), value.to_bits());
            }
        }
    }
}
