//! A weight matrix or a stack of them in the memory of the runtime: float or quantized, as the file has it.
//! Knows nothing of products.

use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};

use crate::format::PADDING;
use crate::memory::{Arena, Block};
use crate::simd::LANES;
use crate::view::{Sides, View};
use weights::adapter::Whole;
use weights::checkpoint::{Part, Weight, WeightKind};
use weights::kernels::{Float, Mode, QuantSpec};

/// How the weights of a matrix are stored. It selects the [`Format`](crate::format::Format).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Float(Float),
    Quantized(QuantSpec, Float),
}

/// Fills bytes with rows of a part, from this row on.
pub(crate) type ReadRows<'a> = &'a dyn Fn(Part, usize, &mut [u8]) -> Result<()>;

/// A matrix `[rows, columns]` or a stack `[matrices, rows, columns]`.
pub struct Matrix {
    pub(crate) kind: Kind,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    weight: Block,
    scales: Option<Block>,
    biases: Option<Block>,
}

/// The value of each code and of each scale, in the modes of small floats.
struct Tables {
    e2m1: [f32; 256],
    e4m3: [f32; 256],
    e8m0: [f32; 256],
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| Tables {
    e2m1: Mode::Mxfp4.code_values(),
    e4m3: Mode::Mxfp8.code_values(),
    e8m0: Mode::Mxfp8.scale_values(),
});

impl Matrix {
    /// Returns how many bytes of an arena the weight takes, or `None` if no machine has so many.
    pub(crate) fn needed(weight: &Weight) -> Option<usize> {
        let each = |part: &Part| Arena::needed(Self::padded_row(weight, *part)?.checked_mul(weight.rows())?);
        weight.parts().iter().try_fold(0_usize, |sum, part| sum.checked_add(each(part)?))
    }

    /// Returns the bytes of a row in memory. Floats are padded to whole chunks of lanes.
    fn padded_row(weight: &Weight, part: Part) -> Option<usize> {
        match weight.kind {
            WeightKind::Float(float) => {
                weight.columns().checked_next_multiple_of(LANES)?.checked_mul(float.size())
            }
            _ => Some(weight.row_bytes(part)),
        }
    }

    /// Reads a weight into blocks of `arena`.
    pub(crate) fn read(arena: &Arena, weight: &Weight, read: ReadRows<'_>) -> Result<Self> {
        let kind = match weight.kind {
            WeightKind::Float(float) => Kind::Float(float),
            WeightKind::Quantized(spec, float) => Kind::Quantized(spec, float),
            WeightKind::Other(element) => anyhow::bail!("it is {element:?}, a float was expected"),
        };
        let block = |part: Part| {
            let (row, stored) = (Self::padded_row(weight, part), weight.row_bytes(part));
            let row = row.context("no machine has so much memory")?;
            arena.block(row * weight.rows(), |bytes| {
                if row == stored {
                    return read(part, 0, bytes);
                }
                let mut rows = bytes.chunks_exact_mut(row).enumerate();
                rows.try_for_each(|(index, bytes)| read(part, index, &mut bytes[..stored]))
            })
        };
        let has = |part| weight.parts().contains(&part);
        let (rows, columns) = (weight.matrix_rows(), weight.columns());
        ensure!(rows > 0 && columns > 0, "it has the shape {:?}", weight.shape);
        Ok(Self {
            kind,
            rows,
            columns,
            weight: block(Part::Weight)?,
            scales: if has(Part::Scales) { Some(block(Part::Scales)?) } else { None },
            biases: if has(Part::Biases) { Some(block(Part::Biases)?) } else { None },
        })
    }

    /// Returns floats in memory as a matrix or a stack.
    pub(crate) fn of_floats(numbers: &Whole) -> Result<Self> {
        let Whole { float, shape, bytes } = numbers;
        let (Some([rows, columns]), Some(matrices)) = (
            shape.last_chunk::<2>().copied(),
            shape.iter().rev().skip(2).try_fold(1_usize, |product, side| product.checked_mul(*side)),
        ) else {
            anyhow::bail!("a matrix has two dimensions or three, not {shape:?}")
        };
        ensure!(rows > 0 && columns > 0 && matrices > 0, "a matrix has the shape {shape:?}");
        let (stored, row) = (columns * float.size(), columns.next_multiple_of(LANES) * float.size());
        let length = row * rows * matrices;
        let arena = Arena::new(Arena::needed(length).context("no machine has so much memory")?)?;
        let weight = arena.block(length, |block| {
            for (to, from) in block.chunks_exact_mut(row).zip(bytes.chunks_exact(stored)) {
                to[..stored].copy_from_slice(from);
            }
            Ok(())
        })?;
        Ok(Self { kind: Kind::Float(*float), rows, columns, weight, scales: None, biases: None })
    }

    /// Returns quantized rows as a matrix.
    #[cfg(test)]
    pub(crate) fn of_packed(packed: &weights::kernels::PackedRows) -> Self {
        let parts = [&packed.weight, &packed.scales, &packed.biases];
        let arena = Arena::new(parts.iter().map(|part| Arena::needed(part.len()).unwrap()).sum()).unwrap();
        let block = |part: &Vec<u8>| {
            arena.block(part.len(), |bytes| {
                bytes.copy_from_slice(part);
                Ok(())
            })
        };
        let has_biases = packed.spec.mode == Mode::Affine;
        Self {
            kind: Kind::Quantized(packed.spec, packed.float),
            rows: packed.weight.len() / packed.spec.weight_bytes(packed.columns),
            columns: packed.columns,
            weight: block(&packed.weight).unwrap(),
            scales: Some(block(&packed.scales).unwrap()),
            biases: has_biases.then(|| block(&packed.biases).unwrap()),
        }
    }

    /// Whether a step of a row has its weights in pairs; see [`arrange`](crate::format::arrange).
    pub(crate) fn is_paired(&self) -> bool {
        matches!(self.kind, Kind::Quantized(QuantSpec { bits: 4, .. }, _))
    }

    /// Returns the length of a row in whole steps, in weights.
    pub(crate) fn step_columns(&self) -> usize {
        self.columns.next_multiple_of(if self.is_paired() { 2 * LANES } else { LANES })
    }

    /// Returns one matrix of the stack.
    pub(crate) fn view(&self, matrix: usize) -> View<'_> {
        let tables = &*TABLES;
        let (row_bytes, group_size, sides, table) = match self.kind {
            Kind::Float(float) => {
                (self.columns.next_multiple_of(LANES) * float.size(), None, Sides::None, &tables.e2m1)
            }
            Kind::Quantized(spec, float) => {
                let sides = match (spec.mode, float) {
                    (Mode::Affine, Float::F16) => Sides::F16,
                    (Mode::Affine, Float::Bf16) => Sides::Bf16,
                    (Mode::Affine, Float::F32) => Sides::F32,
                    (Mode::Nvfp4, _) => Sides::Byte(&tables.e4m3),
                    (Mode::Mxfp4 | Mode::Mxfp8, _) => Sides::Byte(&tables.e8m0),
                };
                let table = if spec.mode == Mode::Mxfp8 { &tables.e4m3 } else { &tables.e2m1 };
                (spec.weight_bytes(self.columns), Some(spec.group_size), sides, table)
            }
        };
        let groups = group_size.map_or(0, |size| self.columns / size);
        let step = if self.is_paired() { 2 * LANES } else { LANES };
        let first = matrix * self.rows;
        View {
            bytes: &self.weight.padded()[first * row_bytes..],
            scales: padded_from(self.scales.as_ref(), first * groups * sides.size()),
            biases: padded_from(self.biases.as_ref(), first * groups * sides.size()),
            sides,
            rows: self.rows,
            row_bytes,
            groups,
            group_shift: group_size.map_or(0, |size| (size / step).max(1).trailing_zeros()),
            table,
        }
    }
}

fn padded_from(block: Option<&Block>, start: usize) -> &[u8] {
    block.map_or(&[], |block| &block.padded()[start..])
}

const _: () = assert!(PADDING >= 4 * LANES, "a side is read sixteen at a time");
