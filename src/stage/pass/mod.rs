//! One pass over a model: every weight read in blocks of rows, computed on all cores, and written in order.
//! Knows nothing of why a weight becomes what it becomes; `fuse` and `quantize` say so.
//!
//! ```text
//! block:  pread ─► dequantize ─► merge ─► quantize ─► measure   on any core, in memory that fits its cache
//! chunk:  some 2 million weights, whose blocks are computed at once
//! belt:   chunks in file order ─► one thread that hashes and writes, while the next chunk is computed
//! ```
//! Memory is that of a few chunks, and of the codes of one tensor: `biases` and `scales` precede `weight` in a file,
//! so its codes wait until the last row is done.

mod belt;
mod block;
mod chunk;
mod measure;
mod target;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::thread;

use anyhow::{Context, ensure};
use rayon::prelude::*;

use super::Tick;
use super::checkpoint::{Checkpoint, Part, Weight, WeightKind};
use crate::adapter::Update;
use crate::backend::{Backend, Float, Grid, Mode, PackedMut, Tally};
use crate::output::Output;
use crate::tensor::{TensorSpec, TensorWriter};
use belt::Belt;
use block::{Block, Scratch};
use chunk::{Progress, chunks, part_of, span, split};
use measure::{Made, Reference};
use target::{module_of, specs};

pub(super) use measure::{Against, Count, Counts};
pub(super) use target::Target;

/// A pass about to be made.
pub(super) struct Pass<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) backend: &'a dyn Backend,
    /// What every weight of the checkpoint becomes, by its name.
    pub(super) targets: BTreeMap<String, Target>,
    /// How a weight is changed, by its name.
    pub(super) update: &'a (dyn Fn(&str) -> anyhow::Result<Option<Update>> + Sync),
    /// What the outcome is measured against.
    pub(super) against: Against<'a>,
}

/// A weight being made.
struct Job<'a> {
    name: &'a str,
    weight: &'a Weight,
    update: Option<Update>,
    reference: Option<Reference<'a>>,
}

/// A block and what was summed over it; nothing if the fine-tuning left it alone.
type Measured = (Range<usize>, Option<Tally>);

/// Where a pass hands on what it makes.
struct Outlet<'a> {
    belt: &'a Belt,
    progress: Progress<'a>,
    /// The blocks of the weight that is being made.
    measured: Vec<Measured>,
}

impl Pass<'_> {
    /// Makes the pass: writes the weights, their shards and their index. Returns what was measured of each weight that
    /// the fine-tuning changed.
    pub(super) fn run(&self, output: &Output, tick: Tick<'_>) -> anyhow::Result<Counts> {
        let writer = TensorWriter::new(output, self.specs())?;
        let order: Vec<_> = writer.order().map(|spec| spec.name.clone()).collect();
        thread::scope(|scope| {
            let (belt, end) = Belt::start(scope, writer, self.checkpoint.parameters());
            let made = self.make_all(&order, &belt, tick).and_then(|counts| belt.finish().map(|()| counts));
            drop(belt);
            let written = end.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // If the writer failed, the maker only knows that nobody takes what it makes.
            written.and(made)
        })
    }

    fn specs(&self) -> Vec<TensorSpec> {
        let weights = self.checkpoint.weights().iter();
        weights.flat_map(|(name, weight)| specs(name, weight, self.target(name))).collect()
    }

    fn target(&self, name: &str) -> Target {
        self.targets.get(name).copied().unwrap_or(Target::Stored)
    }

    fn make_all(&self, order: &[String], belt: &Belt, tick: Tick<'_>) -> anyhow::Result<Counts> {
        let mut counts = Counts::new();
        let progress = Progress { done: 0, total: self.checkpoint.stored(), tick };
        let mut outlet = Outlet { belt, progress, measured: Vec::new() };
        // The parts of a module are made together; what is due later waits here.
        let mut waiting: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
        for tensor in order {
            if !waiting.contains_key(tensor) {
                let (name, part) = self.weight_of(tensor);
                let weight =
                    self.checkpoint.weights().get(&name).context("BUG: a laid out tensor has a weight")?;
                let update = (self.update)(&name)?;
                let reference = self.against.reference(&name, weight, update.is_some());
                let job = Job { name: &name, weight, update, reference };
                waiting.extend(self.make(&job, tensor, part, &mut outlet)?);
                counts.extend(self.count(&job, &mut outlet)?.map(|count| (name.clone(), count)));
            }
            for piece in waiting.remove(tensor).unwrap_or_default() {
                belt.send(tensor, piece)?;
            }
        }
        Ok(counts)
    }

    /// Makes a weight, or `part` of one that is copied; returns what is due later.
    fn make(
        &self,
        job: &Job<'_>,
        tensor: &str,
        part: Part,
        outlet: &mut Outlet<'_>,
    ) -> anyhow::Result<Vec<(String, Vec<Vec<u8>>)>> {
        let target = self.target(job.name);
        ensure!(
            job.update.is_none() || target != Target::Stored,
            "the adapter changes `{}`, which holds no floats",
            job.name
        );
        let same = |float| job.update.is_none() && job.weight.kind == WeightKind::Float(float);
        match target {
            Target::Grid(grid, float) => return self.make_packed(job, grid, float, outlet),
            Target::Float(float) if !same(float) => self.make_dense(job, float, outlet)?,
            Target::Stored | Target::Float(_) => self.copy(job, tensor, part, outlet)?,
        }
        Ok(Vec::new())
    }

    /// Adds up the blocks of a weight in their order, so that threads do not matter.
    fn count(&self, job: &Job<'_>, outlet: &mut Outlet<'_>) -> anyhow::Result<Option<Count>> {
        let mut measured = std::mem::take(&mut outlet.measured);
        let (Some(reference), true) = (&job.reference, measured.iter().any(|(_, tally)| tally.is_some()))
        else {
            return Ok(None);
        };
        let (target, base) = (self.target(job.name), reference.base_kind(job.weight));
        let float = target.float(job.weight).context("BUG: what was measured is a float")?;
        let left: Vec<_> = measured.iter_mut().filter(|(_, tally)| tally.is_none()).collect();
        let left = left.into_iter().map(|(rows, tally)| (rows.clone(), tally)).collect();
        self.for_each(left, |scratch, rows, tally| {
            *tally = self.block(job, float).measure_again(rows, target, scratch)?;
            Ok(())
        })?;
        let mut sum = Tally::default();
        measured.iter().filter_map(|(_, tally)| tally.as_ref()).for_each(|tally| sum.add(tally));
        Ok(sum.is_change().then_some(Count { tally: sum, base, made: target.kind(job.weight) }))
    }

    /// Returns the weight that a tensor of the output belongs to, and which part of it it is.
    fn weight_of(&self, tensor: &str) -> (String, Part) {
        let (module, word) = tensor.rsplit_once('.').unwrap_or(("", tensor));
        let part =
            Part::WORDS.iter().find(|(known, _)| *known == word).map_or(Part::Weight, |(_, part)| *part);
        match self.checkpoint.weights().contains_key(tensor) {
            true => (tensor.to_owned(), Part::Weight),
            false => (format!("{module}.weight"), part),
        }
    }

    fn copy(&self, job: &Job<'_>, tensor: &str, part: Part, outlet: &mut Outlet<'_>) -> anyhow::Result<()> {
        for chunk in chunks(job.weight) {
            let rows = span(&chunk);
            let mut bytes = outlet.belt.empty(0);
            self.checkpoint.read_rows(job.weight, part, &rows, &mut bytes)?;
            outlet.progress.add(bytes.len() as u64)?;
            outlet.belt.send(tensor, bytes)?;
            // The parts of a weight are copied one by one, and measured once.
            if let (Part::Weight, Some(_), Some(float)) = (part, &job.reference, job.weight.float()) {
                let mut tallies = vec![None; chunk.len()];
                self.for_each(chunk.iter().cloned().zip(&mut tallies).collect(), |scratch, rows, tally| {
                    let block = self.block(job, float);
                    let steps = block.read_stored(&rows, scratch)?;
                    *tally = block.measure(&rows, Made::Rows { steps }, false, scratch)?;
                    Ok(())
                })?;
                outlet.measured.extend(chunk.into_iter().zip(tallies));
            }
        }
        Ok(())
    }

    fn make_dense(&self, job: &Job<'_>, float: Float, outlet: &mut Outlet<'_>) -> anyhow::Result<()> {
        let row_bytes = job.weight.columns() * float.size();
        for chunk in chunks(job.weight) {
            let rows = span(&chunk);
            let mut bytes = outlet.belt.empty(rows.len() * row_bytes);
            let mut tallies = vec![None; chunk.len()];
            let places = split(&mut bytes, &chunk, row_bytes).into_iter().zip(&mut tallies);
            self.for_each(chunk.iter().cloned().zip(places).collect(), |scratch, rows, (place, tally)| {
                let block = self.block(job, float);
                block.load(rows.clone(), scratch)?;
                scratch.rows.encode(place);
                *tally = block.measure(&rows, Made::Rows { steps: 0.0 }, false, scratch)?;
                Ok(())
            })?;
            outlet.measured.extend(chunk.into_iter().zip(tallies));
            outlet.progress.add_rows(job.weight, &rows)?;
            outlet.belt.send(job.name, bytes)?;
        }
        Ok(())
    }

    fn make_packed(
        &self,
        job: &Job<'_>,
        grid: Grid,
        float: Float,
        outlet: &mut Outlet<'_>,
    ) -> anyhow::Result<Vec<(String, Vec<Vec<u8>>)>> {
        let (columns, rows) = (job.weight.columns(), job.weight.rows());
        let each =
            [grid.weight_bytes(columns), grid.scale_bytes(columns, float), grid.bias_bytes(columns, float)];
        let (mut scales, mut biases) = (outlet.belt.empty(each[1] * rows), outlet.belt.empty(each[2] * rows));
        let mut codes = Vec::new();
        for chunk in chunks(job.weight) {
            let rows = span(&chunk);
            let mut weight = outlet.belt.empty(rows.len() * each[0]);
            let mut tallies = vec![None; chunk.len()];
            let weights = split(&mut weight, &chunk, each[0]).into_iter();
            let scales = split(part_of(&mut scales, &rows, each[1]), &chunk, each[1]);
            let biases = split(part_of(&mut biases, &rows, each[2]), &chunk, each[2]);
            let places = weights.zip(scales.into_iter().zip(biases)).zip(&mut tallies);
            self.for_each(chunk.iter().cloned().zip(places).collect(), |scratch, rows, place| {
                let ((weight, (scales, biases)), tally) = place;
                let block = self.block(job, float);
                block.load(rows.clone(), scratch)?;
                let packed = block.quantize(grid, PackedMut { weight, scales, biases }, &scratch.rows)?;
                *tally = block.measure(&rows, Made::Packed(packed), false, scratch)?;
                Ok(())
            })?;
            outlet.measured.extend(chunk.into_iter().zip(tallies));
            outlet.progress.add_rows(job.weight, &rows)?;
            codes.push(weight);
        }
        let module = module_of(job.name);
        let mut made = vec![(job.name.to_owned(), codes), (format!("{module}.scales"), vec![scales])];
        if grid.mode == Mode::Affine {
            made.push((format!("{module}.biases"), vec![biases]));
        }
        Ok(made)
    }

    fn block<'a>(&'a self, job: &'a Job<'a>, float: Float) -> Block<'a> {
        Block { checkpoint: self.checkpoint, backend: self.backend, job, float }
    }

    /// Works on blocks, on as many threads as the backend has; each block has a place of its own for its result.
    fn for_each<T: Send>(
        &self,
        blocks: Vec<(Range<usize>, T)>,
        work: impl Fn(&mut Scratch, Range<usize>, T) -> anyhow::Result<()> + Sync,
    ) -> anyhow::Result<()> {
        let work = |(rows, place)| SCRATCH.with_borrow_mut(|scratch| work(scratch, rows, place));
        if self.backend.threads() == 1 {
            return blocks.into_iter().try_for_each(work);
        }
        // All are waited for, so that of several errors the first in the weight is told, not the first in time.
        blocks.into_par_iter().map(work).collect::<Vec<_>>().into_iter().collect()
    }
}

thread_local! {
    /// Each thread keeps its memory for all the blocks that it works on.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}
