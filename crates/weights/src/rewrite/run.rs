//! Runs a rewrite: every weight is read in blocks of rows, computed on all cores, and written in order.
//! Knows nothing of why a weight gets its target; `fuse` and `quantize` decide that.
//!
//! ```text
//! block:  pread ─► dequantize ─► merge ─► quantize ─► measure   on any core, in memory that fits its cache
//! chunk:  about 2 million weights, whose blocks are computed in parallel
//! queue:  chunks in file order ─► one thread that hashes and writes, while the next chunk is computed
//! ```
//! It needs memory for a few chunks and for the codes of one tensor: `biases` and `scales` precede `weight`
//! in a file, so the codes of a tensor wait until its last row is done.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::OnceLock;
use std::thread;

use rayon::prelude::*;

use super::Extent;
use super::block::{Block, Scratch, Way, WeightTask};
use super::chunk::{Progress, chunks, part_of, span, split};
use super::measure::Made;
use super::rounding::{Obstacle, Obstacles, nesting};
use super::target::{module_of, specs};
use super::write_queue::WriteQueue;
use crate::adapter::Update;
use crate::checkpoint::{Checkpoint, Part, Weight, WeightKind};
use crate::error::{OrBug, Result, fail, require};
use crate::kernels::{Backend, Float, Mode, PackedMut, Rounding, UpdateStats};
use crate::probe::{LayerProbe, Probe};
use crate::tensor::{TensorSpec, TensorWriter};
use artifact::{Output, Tick};

pub(super) use super::baseline::Baseline;
pub(super) use super::measure::{Count, Counts};
pub(super) use super::target::Target;

/// A model, and what a rewrite makes of it.
pub(super) struct Rewrite<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) backend: &'a dyn Backend,
    /// What every weight of the checkpoint becomes, by its name.
    pub(super) targets: BTreeMap<String, Target>,
    /// Returns the update of a weight, by its name.
    pub(super) update: &'a (dyn Fn(&str) -> Result<Option<Update>> + Sync),
    /// What the outcome is compared with.
    pub(super) baseline: Baseline<'a>,
    /// How weights are rounded, where nothing is in the way.
    pub(super) rounding: Rounding,
    /// The weights, by name, for which it is decided already how they are rounded.
    pub(super) decided: BTreeMap<String, Rounding>,
    /// What is known of the inputs of layers.
    pub(super) probe: Option<Probe>,
    pub(super) extent: Extent,
}

/// What a rewrite found out about the weights.
#[derive(Default)]
pub(super) struct Findings {
    /// The sums over each weight that the fine-tuning changed.
    pub(super) counts: Counts,
    /// The weights that could not be rounded as asked for, and why.
    pub(super) obstacles: Obstacles,
}

/// Starts the threads that compute. Without this call rayon starts them at the first use, and panics if the
/// system gives none.
fn start_pool() -> Result<()> {
    static POOL: OnceLock<Option<String>> = OnceLock::new();
    // The other reason for an error is that there is a pool already.
    let failed =
        |error: rayon::ThreadPoolBuildError| std::error::Error::source(&error).map(ToString::to_string);
    let problem = POOL.get_or_init(|| rayon::ThreadPoolBuilder::new().build_global().err().and_then(failed));
    match problem {
        Some(problem) => fail!(Backend, "cannot start the threads that compute: {problem}"),
        None => Ok(()),
    }
}

/// A block and the sums over it. `None` if it is not measured or the fine-tuning did not change it.
type Measured = (Range<usize>, Option<UpdateStats>);

/// The pieces of a quantized weight, by tensor.
type Pieces = Vec<(String, Vec<Vec<u8>>)>;

/// Where a rewrite sends what it makes.
struct Outlet<'a> {
    queue: &'a WriteQueue,
    progress: Progress<'a>,
    /// The blocks of the weight that is being made, with their sums.
    measured: Vec<Measured>,
}

impl Rewrite<'_> {
    /// Runs the rewrite: writes the weights, in shards with an index.
    pub(super) fn run(&self, output: &Output, tick: Tick<'_>) -> Result<Findings> {
        let writer = TensorWriter::new(output, self.specs())?;
        if self.extent == Extent::Outline {
            writer.outline(self.checkpoint.parameters())?;
            return Ok(Findings::default());
        }
        start_pool()?;
        let order: Vec<_> = writer.order().map(|spec| spec.name.clone()).collect();
        thread::scope(|scope| {
            let (queue, end) = WriteQueue::start(scope, writer, self.checkpoint.parameters())?;
            let made = self.make_all(&order, &queue, tick).and_then(|found| queue.finish().map(|()| found));
            drop(queue);
            let written = end.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // If the writer failed, the error of the maker only says that the writer is gone. So the error of
            // the writer comes first.
            written.and(made)
        })
    }

    fn specs(&self) -> Vec<TensorSpec> {
        let weights = self.checkpoint.weights().iter();
        weights.flat_map(|(name, weight)| specs(name, weight, self.target(name))).collect()
    }

    /// Returns how many bytes the weights whose names are `wanted` take in the outcome.
    pub(super) fn bytes(&self, wanted: impl Fn(&str) -> bool) -> u64 {
        let weights = self.checkpoint.weights().iter().filter(|(name, _)| wanted(name));
        let specs = weights.flat_map(|(name, weight)| specs(name, weight, self.target(name)));
        specs.map(|spec| spec.length()).sum()
    }

    /// Returns what is known of the inputs of a weight's module.
    pub(super) fn layer_probe(&self, name: &str, weight: &Weight) -> Result<Option<LayerProbe>> {
        let Some(probe) = &self.probe else { return Ok(None) };
        probe.layer(module_of(name), weight.columns())
    }

    pub(super) fn target(&self, name: &str) -> Target {
        self.targets.get(name).copied().unwrap_or(Target::Stored)
    }

    fn make_all(&self, order: &[String], queue: &WriteQueue, tick: Tick<'_>) -> Result<Findings> {
        let mut found = Findings::default();
        let progress = Progress { done: 0, total: self.checkpoint.stored(), tick };
        let mut outlet = Outlet { queue, progress, measured: Vec::new() };
        // The parts of a module are made together. Those that come later in the file wait here.
        let mut waiting: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
        for tensor in order {
            if !waiting.contains_key(tensor) {
                let (name, part) = self.weight_of(tensor);
                let weight = self.checkpoint.weights().get(&name).or_bug("a laid out tensor has a weight")?;
                let update = (self.update)(&name)?;
                let baseline = self.baseline.of_weight(&name, weight, update.is_some());
                let directions =
                    self.layer_probe(&name, weight)?.and_then(|probe| probe.weighted_directions());
                let task = WeightTask { name: &name, weight, update, baseline, directions };
                let (pieces, count) =
                    self.make_rounded(&task, (tensor, part), &mut found.obstacles, &mut outlet)?;
                waiting.extend(pieces);
                found.counts.extend(count.map(|count| (name.clone(), count)));
            }
            for piece in waiting.remove(tensor).unwrap_or_default() {
                queue.send(tensor, piece)?;
            }
        }
        Ok(found)
    }

    /// Makes a weight, or only `part` of it if it is copied, and adds up the sums over it. If it turns out that
    /// the weight should not be kept on the grid of its base, it is made again.
    fn make_rounded(
        &self,
        task: &WeightTask<'_>,
        place: (&str, Part),
        obstacles: &mut Obstacles,
        outlet: &mut Outlet<'_>,
    ) -> Result<(Pieces, Option<Count>)> {
        let rounding = self.rounding(task);
        let done = outlet.progress.done;
        let pieces = self.make(task, place, rounding.unwrap_or_default(), outlet)?;
        let count = self.count(task, rounding.unwrap_or_default(), outlet)?;
        let is_wrong = self.is_kept_wrongly(task.name, count.as_ref());
        let obstacle = rounding.err().or(is_wrong.then_some(Obstacle::LargeUpdate));
        obstacles.extend(obstacle.map(|obstacle| (task.name.to_owned(), obstacle)));
        if !is_wrong {
            return Ok((pieces, count));
        }
        drop(pieces);
        outlet.progress.done = done;
        let pieces = self.make(task, place, Rounding::Nearest, outlet)?;
        Ok((pieces, self.count(task, Rounding::Nearest, outlet)?))
    }

    /// Makes a weight, or only `part` of it if it is copied. Returns the pieces of a quantized weight, by
    /// tensor, for the caller to send in the order of the file.
    fn make(
        &self,
        task: &WeightTask<'_>,
        (tensor, part): (&str, Part),
        rounding: Rounding,
        outlet: &mut Outlet<'_>,
    ) -> Result<Pieces> {
        let target = self.target(task.name);
        require!(
            task.update.is_none() || target != Target::Stored,
            Options,
            "the adapter changes `{}`, which holds no floats",
            task.name
        );
        let same = |float| task.update.is_none() && task.weight.kind == WeightKind::Float(float);
        match target {
            Target::Quantized(spec, float) => {
                return self.make_packed(task, Way { spec, rounding }, float, outlet);
            }
            Target::Float(float) if !same(float) => self.make_dense(task, float, outlet)?,
            Target::Stored | Target::Float(_) => self.copy(task, tensor, part, outlet)?,
        }
        Ok(Vec::new())
    }

    /// Adds up the sums over the blocks of a weight, in the order of the blocks, so that the number of
    /// threads makes no difference. If the fine-tuning changed a block, the blocks that were skipped are
    /// measured too.
    fn count(
        &self,
        task: &WeightTask<'_>,
        rounding: Rounding,
        outlet: &mut Outlet<'_>,
    ) -> Result<Option<Count>> {
        let mut measured = std::mem::take(&mut outlet.measured);
        let (Some(baseline), true) = (&task.baseline, measured.iter().any(|(_, stats)| stats.is_some()))
        else {
            return Ok(None);
        };
        let (target, base) = (self.target(task.name), baseline.base_kind(task.weight));
        let float = target.float(task.weight).or_bug("what was measured is a float")?;
        let left: Vec<_> = measured.iter_mut().filter(|(_, stats)| stats.is_none()).collect();
        let left = left.into_iter().map(|(rows, stats)| (rows.clone(), stats)).collect();
        self.for_each(left, |scratch, rows, stats| {
            *stats = self.block(task, float).measure_again(rows, target, rounding, scratch)?;
            Ok(())
        })?;
        let mut sum = UpdateStats::default();
        measured.iter().filter_map(|(_, stats)| stats.as_ref()).for_each(|stats| sum.add(stats));
        let made = target.kind(task.weight);
        let nesting = made.spec().and_then(|spec| nesting(task, spec, float).ok());
        Ok(sum.is_change().then_some(Count { stats: sum, base, made, rounding, nesting }))
    }

    /// Returns the weight that a tensor of the output belongs to, and which part of the weight it is.
    fn weight_of(&self, tensor: &str) -> (String, Part) {
        let (module, word) = tensor.rsplit_once('.').unwrap_or(("", tensor));
        let part =
            Part::WORDS.iter().find(|(known, _)| *known == word).map_or(Part::Weight, |(_, part)| *part);
        match self.checkpoint.weights().contains_key(tensor) {
            true => (tensor.to_owned(), Part::Weight),
            false => (format!("{module}.weight"), part),
        }
    }

    fn copy(&self, task: &WeightTask<'_>, tensor: &str, part: Part, outlet: &mut Outlet<'_>) -> Result<()> {
        for chunk in chunks(task.weight) {
            let rows = span(&chunk);
            let mut bytes = outlet.queue.empty(0);
            self.checkpoint.read_rows(task.weight, part, &rows, &mut bytes)?;
            outlet.progress.add(bytes.len() as u64)?;
            outlet.queue.send(tensor, bytes)?;
            // The parts of a weight are copied separately, but the weight is measured once.
            if let (Part::Weight, Some(_), Some(float)) = (part, &task.baseline, task.weight.float()) {
                let mut stats = vec![None; chunk.len()];
                self.for_each(chunk.iter().cloned().zip(&mut stats).collect(), |scratch, rows, stats| {
                    let block = self.block(task, float);
                    let steps = block.read_stored(&rows, scratch)?;
                    block.load_baseline(&rows, scratch)?;
                    *stats = block.measure(Made::Rows { steps }, false, scratch)?;
                    Ok(())
                })?;
                outlet.measured.extend(chunk.into_iter().zip(stats));
            }
        }
        Ok(())
    }

    fn make_dense(&self, task: &WeightTask<'_>, float: Float, outlet: &mut Outlet<'_>) -> Result<()> {
        let row_bytes = task.weight.columns() * float.size();
        for chunk in chunks(task.weight) {
            let rows = span(&chunk);
            let mut bytes = outlet.queue.empty(rows.len() * row_bytes);
            let mut stats = vec![None; chunk.len()];
            let places = split(&mut bytes, &chunk, row_bytes).into_iter().zip(&mut stats);
            self.for_each(chunk.iter().cloned().zip(places).collect(), |scratch, rows, (place, stats)| {
                let block = self.block(task, float);
                block.load(rows.clone(), scratch)?;
                scratch.rows.encode(place);
                block.load_baseline(&rows, scratch)?;
                *stats = block.measure(Made::Rows { steps: 0.0 }, false, scratch)?;
                Ok(())
            })?;
            outlet.measured.extend(chunk.into_iter().zip(stats));
            outlet.progress.add_rows(task.weight, &rows)?;
            outlet.queue.send(task.name, bytes)?;
        }
        Ok(())
    }

    fn make_packed(
        &self,
        task: &WeightTask<'_>,
        way: Way,
        float: Float,
        outlet: &mut Outlet<'_>,
    ) -> Result<Pieces> {
        let spec = way.spec;
        let (columns, rows) = (task.weight.columns(), task.weight.rows());
        let each =
            [spec.weight_bytes(columns), spec.scale_bytes(columns, float), spec.bias_bytes(columns, float)];
        let (mut scales, mut biases) =
            (outlet.queue.empty(each[1] * rows), outlet.queue.empty(each[2] * rows));
        let mut codes = Vec::new();
        for chunk in chunks(task.weight) {
            let rows = span(&chunk);
            let mut weight = outlet.queue.empty(rows.len() * each[0]);
            let mut stats = vec![None; chunk.len()];
            let weights = split(&mut weight, &chunk, each[0]).into_iter();
            let scales = split(part_of(&mut scales, &rows, each[1]), &chunk, each[1]);
            let biases = split(part_of(&mut biases, &rows, each[2]), &chunk, each[2]);
            let places = weights.zip(scales.into_iter().zip(biases)).zip(&mut stats);
            self.for_each(chunk.iter().cloned().zip(places).collect(), |scratch, rows, place| {
                let ((weight, (scales, biases)), stats) = place;
                let block = self.block(task, float);
                block.load(rows.clone(), scratch)?;
                block.load_baseline(&rows, scratch)?;
                let out = PackedMut { weight, scales, biases };
                let packed = block.quantize(&rows, way, out, scratch)?;
                *stats = block.measure(Made::Packed(packed), false, scratch)?;
                Ok(())
            })?;
            outlet.measured.extend(chunk.into_iter().zip(stats));
            outlet.progress.add_rows(task.weight, &rows)?;
            codes.push(weight);
        }
        let module = module_of(task.name);
        let mut made = vec![(task.name.to_owned(), codes), (format!("{module}.scales"), vec![scales])];
        if spec.mode == Mode::Affine {
            made.push((format!("{module}.biases"), vec![biases]));
        }
        Ok(made)
    }

    pub(super) fn block<'a>(&'a self, task: &'a WeightTask<'a>, float: Float) -> Block<'a> {
        Block { checkpoint: self.checkpoint, backend: self.backend, task, float }
    }

    /// Runs `work` on the blocks, on as many threads as the backend allows. Each block has its own place for
    /// its result.
    pub(super) fn for_each<T: Send>(
        &self,
        blocks: Vec<(Range<usize>, T)>,
        work: impl Fn(&mut Scratch, Range<usize>, T) -> Result<()> + Sync,
    ) -> Result<()> {
        let work = |(rows, place)| SCRATCH.with_borrow_mut(|scratch| work(scratch, rows, place));
        if self.backend.threads() == 1 {
            return blocks.into_iter().try_for_each(work);
        }
        // All blocks are finished, so that of several errors the first in the weight is reported, not the
        // first in time.
        blocks.into_par_iter().map(work).collect::<Vec<_>>().into_iter().collect()
    }
}

thread_local! {
    /// Each thread reuses its memory for all blocks that it works on.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}
