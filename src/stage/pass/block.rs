//! One block of rows: read, dequantized, updated and checked.
//! Knows nothing of other blocks, nor of what becomes of it.

use std::ops::Range;

use anyhow::{Context, bail, ensure};

use super::Job;
use crate::adapter::Update;
use crate::backend::{Backend, Float, Grid, Mode, Packed, PackedMut, Rows};
use crate::stage::checkpoint::{Checkpoint, Part, WeightKind};

/// Memory for one block at a time, used again for the next.
pub(super) struct Scratch {
    pub(super) rows: Rows,
    /// The rows as they were before an update, and after it.
    base: Rows,
    updated: Rows,
    parts: [Vec<u8>; 3],
    side: Rows,
}

impl Default for Scratch {
    fn default() -> Self {
        let none = Rows::new(Float::F32, 1);
        Self {
            rows: none.clone(),
            base: none.clone(),
            updated: none.clone(),
            parts: Default::default(),
            side: none,
        }
    }
}

/// What all blocks of a weight have in common.
pub(super) struct Block<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) backend: &'a dyn Backend,
    pub(super) job: &'a Job<'a>,
    /// The type that the weight has before it is quantized.
    pub(super) float: Float,
}

impl Block<'_> {
    /// Brings `rows` of the weight into `scratch.rows`, updated.
    pub(super) fn load(&self, rows: Range<usize>, scratch: &mut Scratch) -> anyhow::Result<()> {
        let (matrix, columns) = (self.job.weight.matrix_rows(), self.job.weight.columns());
        if let Some(Update::Whole(whole) | Update::Rebased(whole, _)) = &self.job.update {
            let row_bytes = columns * whole.float.size();
            let bytes = whole.bytes.get(rows.start * row_bytes..rows.end * row_bytes);
            let bytes = bytes.context("BUG: a tensor has the shape of the weight whose place it takes")?;
            scratch.rows.decode(whole.float, columns, bytes);
            scratch.rows.cast(self.float);
        } else {
            self.read(&rows, scratch)?;
        }
        if self.job.update.is_some() {
            scratch.base.values.clone_from(&scratch.rows.values);
        }
        let lora = match &self.job.update {
            Some(Update::LowRank(experts)) => experts.get(rows.start / matrix).and_then(Option::as_ref),
            Some(Update::Rebased(_, lora)) => Some(lora),
            _ => None,
        };
        if let Some(lora) = lora {
            self.backend.merge(&mut scratch.rows, lora, rows.start % matrix)?;
        }
        self.check(rows.start, &scratch.rows)
    }

    /// Quantizes the rows that were loaded. Returns how much of an update is left: the product of what came of it with
    /// the update itself, and the update's square.
    pub(super) fn quantize(
        &self,
        grid: Grid,
        out: PackedMut<'_>,
        scratch: &mut Scratch,
    ) -> anyhow::Result<[f64; 2]> {
        let Scratch { rows, base, updated, .. } = scratch;
        if !matches!(self.job.update, Some(Update::LowRank(_) | Update::Rebased(..))) {
            return self.backend.quantize(rows, grid, out).map(|()| [0.0; 2]);
        }
        updated.values.clone_from(&rows.values);
        let PackedMut { weight, scales, biases } = out;
        self.backend.quantize(rows, grid, PackedMut { weight, scales, biases })?;
        let packed = Packed { grid, float: self.float, columns: rows.columns, weight, scales, biases };
        self.backend.dequantize(packed, rows)?;
        let all = base.values.iter().zip(&updated.values).zip(&rows.values);
        Ok(all.fold([0.0; 2], |[product, square], ((base, updated), left)| {
            let update = f64::from(*updated) - f64::from(*base);
            [product + (f64::from(*left) - f64::from(*base)) * update, square + update * update]
        }))
    }

    /// Reads the rows as floats. As in mlx-lm's `convert --dequantize --dtype`, scales and biases take the type
    /// first, and the weight is dequantized in it.
    fn read(&self, rows: &Range<usize>, scratch: &mut Scratch) -> anyhow::Result<()> {
        let weight = self.job.weight;
        let [codes, scales, biases] = &mut scratch.parts;
        let columns = weight.columns();
        self.checkpoint.read_rows(weight, Part::Weight, rows, codes)?;
        let (grid, float) = match weight.kind {
            WeightKind::Float(float) => {
                scratch.rows.decode(float, columns, codes);
                scratch.rows.cast(self.float);
                return Ok(());
            }
            WeightKind::Quantized(grid, float) => (grid, float),
            WeightKind::Other(element) => bail!("BUG: `{}` is {element}", self.job.name),
        };
        self.checkpoint.read_rows(weight, Part::Scales, rows, scales)?;
        if grid.mode == Mode::Affine {
            self.checkpoint.read_rows(weight, Part::Biases, rows, biases)?;
            for side in [&mut *scales, biases] {
                cast(float, self.float, side, &mut scratch.side);
            }
        } else {
            biases.clear();
        }
        let packed = Packed { grid, float: self.float, columns, weight: codes, scales, biases };
        self.backend.dequantize(packed, &mut scratch.rows)
    }

    /// A weight that is not a number ruins every answer, and quantizing spreads it over its group.
    fn check(&self, first: usize, rows: &Rows) -> anyhow::Result<()> {
        let Some((row, column)) = rows.first_wild() else { return Ok(()) };
        let value = rows.values.get(row * rows.columns + column).copied().unwrap_or(f32::NAN);
        let (name, row) = (self.job.name, first + row);
        let hint = match self.float {
            Float::F16 => "; float16 ends at 65504, bfloat16 has the range of float32",
            _ => "",
        };
        ensure!(value.is_finite(), "`{name}` is {value} in row {row}, column {column}{hint}");
        bail!("`{name}` is {value:e} in row {row}, column {column}, too large to compute with")
    }
}

fn cast(from: Float, to: Float, bytes: &mut Vec<u8>, rows: &mut Rows) {
    if from != to {
        rows.decode(from, 1, bytes);
        rows.cast(to);
        bytes.resize(rows.values.len() * to.size(), 0);
        rows.encode(bytes);
    }
}
