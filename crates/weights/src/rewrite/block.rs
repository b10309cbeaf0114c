//! Makes one block of rows: reads, dequantizes, updates, checks and quantizes it.
//! Knows nothing of other blocks, nor of where the result goes.

use std::ops::Range;

use super::baseline::{WeightBaseline, WeightRef};
use crate::Error;
use crate::adapter::Update;
use crate::checkpoint::{Checkpoint, Part, Weight, WeightKind};
use crate::error::{OrBug, Result, fail};
use crate::kernels::{
    Backend, Directions, Dither, Float, Mode, Packed, PackedMut, QuantSpec, Rounding, Rows,
};

/// Scratch memory for one block. It is reused for the next block.
pub(super) struct Scratch {
    pub(super) rows: Rows,
    /// The rows before a fine-tuning (`base`), after it (`updated`), and dequantized from the codes that were
    /// made of them (`made`).
    pub(super) base: Rows,
    pub(super) updated: Rows,
    pub(super) made: Rows,
    /// Buffers for the bytes that rows are read from.
    pub(super) aside: Aside,
}

/// Buffers for the bytes that rows are read from.
pub(super) struct Aside {
    parts: [Vec<u8>; 3],
    side: Rows,
}

impl Aside {
    fn packed(&self, spec: QuantSpec, float: Float, columns: usize) -> Packed<'_> {
        let [weight, scales, biases] = &self.parts;
        Packed { spec, float, columns, weight, scales, biases }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        let none = || Rows::new(Float::F32, 1);
        let aside = Aside { parts: Default::default(), side: none() };
        Self { rows: none(), base: none(), updated: none(), made: none(), aside }
    }
}

/// A weight that is being made.
pub(super) struct WeightTask<'a> {
    pub(super) name: &'a str,
    pub(super) weight: &'a Weight,
    pub(super) update: Option<Update>,
    pub(super) baseline: Option<WeightBaseline<'a>>,
    /// The directions that its inputs take, if they are known.
    pub(super) directions: Option<Directions>,
}

/// One way to make codes of a weight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) spec: QuantSpec,
    pub(super) rounding: Rounding,
}

/// What is needed to make any block of a weight.
pub(super) struct Block<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) backend: &'a dyn Backend,
    pub(super) task: &'a WeightTask<'a>,
    /// The type that the weight has before it is quantized.
    pub(super) float: Float,
}

impl Block<'_> {
    /// Reads `rows` of the weight into `scratch.rows`, applies the update and checks the result.
    pub(super) fn load(&self, rows: Range<usize>, scratch: &mut Scratch) -> Result<()> {
        let (matrix, columns) = (self.task.weight.matrix_rows(), self.task.weight.columns());
        let whole = match &self.task.update {
            Some(Update::Replace(whole) | Update::ReplaceThenAdd(whole, _)) => Some(whole),
            _ => None,
        };
        let is_base = matches!(self.task.baseline, Some(WeightBaseline::Itself));
        if whole.is_none() || is_base {
            self.read_stored(&rows, scratch)?;
        }
        if is_base {
            scratch.base.copy_from(&scratch.rows);
        }
        if let Some(whole) = whole {
            let row_bytes = columns * whole.float.size();
            let bytes = whole.bytes.get(rows.start * row_bytes..rows.end * row_bytes);
            let bytes = bytes.or_bug("a tensor has the shape of the weight whose place it takes")?;
            scratch.rows.decode(whole.float, columns, bytes);
            scratch.rows.cast(self.float);
        }
        let lora = match &self.task.update {
            Some(Update::LowRank(experts)) => experts.get(rows.start / matrix).and_then(Option::as_ref),
            Some(Update::ReplaceThenAdd(_, lora)) => Some(lora),
            _ => None,
        };
        if let Some(lora) = lora {
            self.backend.merge(&mut scratch.rows, lora, rows.start % matrix)?;
        }
        self.check(rows.start, &scratch.rows)
    }

    /// Reads `rows` of the stored weight, without the update, into `scratch.rows`. Returns the sum of the
    /// squared quantization steps, or 0 if the weight is not quantized.
    pub(super) fn read_stored(&self, rows: &Range<usize>, scratch: &mut Scratch) -> Result<f64> {
        let place = WeightRef { checkpoint: self.checkpoint, weight: self.task.weight };
        self.read(place, self.float, rows, &mut scratch.aside, &mut scratch.rows)?;
        Ok(match self.task.weight.kind {
            WeightKind::Quantized(spec, _) => {
                scratch.aside.packed(spec, self.float, self.task.weight.columns()).steps()
            }
            _ => 0.0,
        })
    }

    /// Quantizes `rows` into `out`. They are loaded, and so is what they are compared with.
    pub(super) fn quantize<'o>(
        &self,
        rows: &Range<usize>,
        Way { spec, rounding }: Way,
        out: PackedMut<'o>,
        scratch: &Scratch,
    ) -> Result<Packed<'o>> {
        let PackedMut { weight, scales, biases } = out;
        let places = PackedMut { weight: &mut *weight, scales: &mut *scales, biases: &mut *biases };
        match rounding {
            Rounding::Nearest => self.backend.quantize(&scratch.rows, spec, places)?,
            Rounding::Keep => {
                let dither = Dither::of(self.task.name, rows.start);
                // Without an update there is no error.
                let directions = self.task.directions.as_ref().filter(|_| !scratch.base.same(&scratch.rows));
                self.packed_base(scratch)?.keep(&scratch.rows, dither, (spec, directions), places)?;
            }
        }
        Ok(Packed { spec, float: self.float, columns: scratch.rows.columns, weight, scales, biases })
    }

    /// Returns the codes of the base, which were read into `scratch` last.
    pub(super) fn packed_base<'s>(&self, scratch: &'s Scratch) -> Result<Packed<'s>> {
        let baseline = self.task.baseline.as_ref().or_bug("what is kept has a base")?;
        let base = baseline.base_kind(self.task.weight).spec().or_bug("the base is quantized")?;
        Ok(scratch.aside.packed(base, self.float, scratch.rows.columns))
    }

    /// Reads rows of a weight as floats of type `to`. In the affine mode, scales and biases are cast to `to`
    /// first, and the weight is dequantized in that type, as in mlx-lm's `convert --dequantize --dtype`.
    pub(super) fn read(
        &self,
        WeightRef { checkpoint, weight }: WeightRef<'_>,
        to: Float,
        rows: &Range<usize>,
        aside: &mut Aside,
        into: &mut Rows,
    ) -> Result<()> {
        let Aside { parts: [codes, scales, biases], side } = aside;
        let columns = weight.columns();
        checkpoint.read_rows(weight, Part::Weight, rows, codes)?;
        let (spec, float) = match weight.kind {
            WeightKind::Float(float) => {
                into.decode(float, columns, codes);
                into.cast(to);
                return Ok(());
            }
            WeightKind::Quantized(spec, float) => (spec, float),
            WeightKind::Other(element) => fail!(Bug, "`{}` is {element}", self.task.name),
        };
        checkpoint.read_rows(weight, Part::Scales, rows, scales)?;
        if spec.mode == Mode::Affine {
            checkpoint.read_rows(weight, Part::Biases, rows, biases)?;
            for bytes in [&mut *scales, biases] {
                cast(float, to, bytes, side);
            }
        } else {
            biases.clear();
        }
        self.backend.dequantize(aside.packed(spec, to, columns), into)
    }

    /// Fails if a weight is out of range. A single NaN ruins every answer of the model, and quantizing
    /// spreads it over its group.
    fn check(&self, first: usize, rows: &Rows) -> Result<()> {
        let Some((row, column)) = rows.first_out_of_range() else { return Ok(()) };
        let value = rows.values.get(row * rows.columns + column).copied().unwrap_or(f32::NAN);
        let hint = match self.float {
            _ if value.is_finite() => ", too large to compute with",
            Float::F16 => "; float16 ends at 65504, bfloat16 has the range of float32",
            _ => "",
        };
        Err(Error::OutOfRange { tensor: self.task.name.to_owned(), row: first + row, column, value, hint })
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
