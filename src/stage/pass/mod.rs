//! One pass over a model: every weight read in blocks of rows, computed on all cores, and written in order.
//! Knows nothing of why a weight becomes what it becomes; `fuse` and `quantize` say so.
//!
//! ```text
//! block:  pread ─► dequantize ─► merge ─► quantize      on any core, in memory that fits its cache
//! chunk:  some 2 million weights, whose blocks are computed at once
//! belt:   chunks in file order ─► one thread that hashes and writes, while the next chunk is computed
//! ```
//! Memory is that of a few chunks, and of the codes of one tensor: `biases` and `scales` precede `weight` in a file,
//! so its codes wait until the last row is done.

mod belt;
mod block;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::thread;

use anyhow::{Context, ensure};
use rayon::prelude::*;

use super::Tick;
use super::checkpoint::{Checkpoint, Part, Weight, WeightKind, element_of};
use crate::adapter::Update;
use crate::backend::{Backend, Float, Grid, Mode, PackedMut};
use crate::output::Output;
use crate::tensor::{Element, TensorSpec, TensorWriter};
use belt::Belt;
use block::{Block, Scratch};

/// How many weights make a block: as float32 an eighth of a megabyte, which fits the L2 cache beside what it is
/// read from and written to.
const BLOCK_WEIGHTS: usize = 1 << 15;

/// How many blocks make a chunk.
const CHUNK_BLOCKS: usize = 64;

/// What a weight becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// What it is: its tensors are copied.
    Stored,
    /// One tensor of floats.
    Float(Float),
    /// Codes, scales and, in the affine mode, biases of this type.
    Grid(Grid, Float),
}

/// A pass about to be made.
pub(super) struct Pass<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) backend: &'a dyn Backend,
    /// What every weight of the checkpoint becomes, by its name.
    pub(super) targets: BTreeMap<String, Target>,
    /// How a weight is changed, by its name.
    pub(super) update: &'a (dyn Fn(&str) -> anyhow::Result<Option<Update>> + Sync),
}

/// A weight being made.
struct Job<'a> {
    name: &'a str,
    weight: &'a Weight,
    update: Option<Update>,
}

impl Pass<'_> {
    /// Makes the pass: writes the weights, their shards and their index. Returns how much is left of low-rank updates
    /// that were quantized at once, as a share; none if there were none.
    pub(super) fn run(&self, output: &Output, tick: Tick<'_>) -> anyhow::Result<Option<f64>> {
        let writer = TensorWriter::new(output, self.specs())?;
        let order: Vec<_> = writer.order().map(|spec| spec.name.clone()).collect();
        thread::scope(|scope| {
            let (belt, end) = Belt::start(scope, writer, self.checkpoint.parameters());
            let made = self.make_all(&order, &belt, tick).and_then(|left| belt.finish().map(|()| left));
            drop(belt);
            let written = end.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // If the writer failed, the maker only knows that nobody takes what it makes.
            written.and(made).map(|[product, square]| (square > 0.0).then(|| product / square))
        })
    }

    fn specs(&self) -> Vec<TensorSpec> {
        let weights = self.checkpoint.weights().iter();
        weights.flat_map(|(name, weight)| specs(name, weight, self.target(name))).collect()
    }

    fn target(&self, name: &str) -> Target {
        self.targets.get(name).copied().unwrap_or(Target::Stored)
    }

    fn make_all(&self, order: &[String], belt: &Belt, tick: Tick<'_>) -> anyhow::Result<[f64; 2]> {
        let mut left = [0.0; 2];
        let mut progress = Progress { done: 0, total: self.checkpoint.stored(), tick };
        // The parts of a module are made together; what is due later waits here.
        let mut waiting: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
        for tensor in order {
            if !waiting.contains_key(tensor) {
                let (name, part) = self.weight_of(tensor);
                let weight =
                    self.checkpoint.weights().get(&name).context("BUG: a laid out tensor has a weight")?;
                let job = Job { name: &name, weight, update: (self.update)(&name)? };
                let target = self.target(&name);
                ensure!(
                    job.update.is_none() || target != Target::Stored,
                    "the adapter changes `{name}`, which holds no floats"
                );
                match target {
                    Target::Stored => self.copy(&job, tensor, part, belt, &mut progress)?,
                    Target::Float(float)
                        if job.update.is_none() && weight.kind == WeightKind::Float(float) =>
                    {
                        self.copy(&job, tensor, part, belt, &mut progress)?;
                    }
                    Target::Float(float) => self.make_dense(&job, float, belt, &mut progress)?,
                    Target::Grid(grid, float) => {
                        waiting.extend(self.make_packed(
                            &job,
                            grid,
                            float,
                            belt,
                            &mut progress,
                            &mut left,
                        )?);
                    }
                }
            }
            for piece in waiting.remove(tensor).unwrap_or_default() {
                belt.send(tensor, piece)?;
            }
        }
        Ok(left)
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

    fn copy(
        &self,
        job: &Job<'_>,
        tensor: &str,
        part: Part,
        belt: &Belt,
        progress: &mut Progress<'_>,
    ) -> anyhow::Result<()> {
        for chunk in chunks(job.weight) {
            let rows = span(&chunk);
            let mut bytes = belt.empty(0);
            self.checkpoint.read_rows(job.weight, part, &rows, &mut bytes)?;
            progress.add(bytes.len() as u64)?;
            belt.send(tensor, bytes)?;
        }
        Ok(())
    }

    fn make_dense(
        &self,
        job: &Job<'_>,
        float: Float,
        belt: &Belt,
        progress: &mut Progress<'_>,
    ) -> anyhow::Result<()> {
        let row_bytes = job.weight.columns() * float.size();
        for chunk in chunks(job.weight) {
            let rows = span(&chunk);
            let mut bytes = belt.empty(rows.len() * row_bytes);
            let places = split(&mut bytes, &chunk, row_bytes);
            self.for_each(chunk.iter().cloned().zip(places).collect(), |scratch, rows, place| {
                self.block(job, float).load(rows, scratch)?;
                scratch.rows.encode(place);
                Ok(())
            })?;
            progress.add_rows(job.weight, &rows)?;
            belt.send(job.name, bytes)?;
        }
        Ok(())
    }

    fn make_packed(
        &self,
        job: &Job<'_>,
        grid: Grid,
        float: Float,
        belt: &Belt,
        progress: &mut Progress<'_>,
        left: &mut [f64; 2],
    ) -> anyhow::Result<Vec<(String, Vec<Vec<u8>>)>> {
        let columns = job.weight.columns();
        let each =
            [grid.weight_bytes(columns), grid.scale_bytes(columns, float), grid.bias_bytes(columns, float)];
        let rows = job.weight.rows();
        let (mut scales, mut biases) = (belt.empty(each[1] * rows), belt.empty(each[2] * rows));
        let mut codes = Vec::new();
        for chunk in chunks(job.weight) {
            let rows = span(&chunk);
            let mut weight = belt.empty(rows.len() * each[0]);
            let places = split(&mut weight, &chunk, each[0]).into_iter();
            let sides = split(part_of(&mut scales, &rows, each[1]), &chunk, each[1]).into_iter().zip(split(
                part_of(&mut biases, &rows, each[2]),
                &chunk,
                each[2],
            ));
            // Each block has its own sums, added up in their order: threads do not matter.
            let mut sums = vec![[0.0; 2]; chunk.len()];
            let places = places.zip(sides).zip(&mut sums);
            self.for_each(chunk.iter().cloned().zip(places).collect(), |scratch, rows, place| {
                let ((weight, (scales, biases)), sum) = place;
                let block = self.block(job, float);
                block.load(rows, scratch)?;
                *sum = block.quantize(grid, PackedMut { weight, scales, biases }, scratch)?;
                Ok(())
            })?;
            *left = sums.iter().fold(*left, |[a, b], [c, d]| [a + c, b + d]);
            progress.add_rows(job.weight, &rows)?;
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

/// Counts the bytes of the source that are done.
struct Progress<'a> {
    done: u64,
    total: u64,
    tick: Tick<'a>,
}

impl Progress<'_> {
    fn add(&mut self, bytes: u64) -> anyhow::Result<()> {
        self.done += bytes;
        Ok((self.tick)(self.done.min(self.total), self.total)?)
    }

    fn add_rows(&mut self, weight: &Weight, rows: &Range<usize>) -> anyhow::Result<()> {
        self.add(weight.stored / weight.rows().max(1) as u64 * rows.len() as u64)
    }
}

/// Returns the tensors that a weight becomes.
fn specs(name: &str, weight: &Weight, target: Target) -> Vec<TensorSpec> {
    let spec = |name: String, element: Element, columns: usize| {
        let mut shape = weight.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = columns;
        }
        TensorSpec { name, element, shape }
    };
    let columns = weight.columns();
    let (grid, float) = match (target, weight.kind) {
        (Target::Float(float), _) | (Target::Stored, WeightKind::Float(float)) => {
            return vec![spec(name.to_owned(), element_of(float), columns)];
        }
        (Target::Stored, WeightKind::Other(element)) => return vec![spec(name.to_owned(), element, columns)],
        (Target::Grid(grid, float), _) | (Target::Stored, WeightKind::Quantized(grid, float)) => {
            (grid, float)
        }
    };
    let module = module_of(name);
    let affine = grid.mode == Mode::Affine;
    let side = if affine { element_of(float) } else { Element::U8 };
    let part = |word: &str, element, columns| spec(format!("{module}.{word}"), element, columns);
    let mut specs = vec![
        part("weight", Element::U32, columns * grid.bits / 32),
        part("scales", side, columns / grid.group_size),
    ];
    specs.extend(affine.then(|| part("biases", side, columns / grid.group_size)));
    specs
}

fn module_of(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}

/// Cuts a weight into blocks of rows, none of which reaches into the next matrix of a stack, and these into chunks.
/// There is at least one chunk, so that a tensor without elements is written too.
fn chunks(weight: &Weight) -> Vec<Vec<Range<usize>>> {
    if weight.rows() * weight.columns() == 0 {
        return vec![Vec::new()];
    }
    let matrix = weight.matrix_rows();
    let height = (BLOCK_WEIGHTS / weight.columns()).max(1);
    let matrices = (0..weight.rows()).step_by(matrix);
    let blocks = matrices.flat_map(|first| {
        let end = first + matrix;
        (first..end).step_by(height).map(move |row| row..end.min(row + height))
    });
    let blocks: Vec<_> = blocks.collect();
    blocks.chunks(CHUNK_BLOCKS).map(<[_]>::to_vec).collect()
}

/// Returns the rows of a chunk.
fn span(chunk: &[Range<usize>]) -> Range<usize> {
    match (chunk.first(), chunk.last()) {
        (Some(first), Some(last)) => first.start..last.end,
        _ => 0..0,
    }
}

fn part_of<'a>(bytes: &'a mut [u8], rows: &Range<usize>, row_bytes: usize) -> &'a mut [u8] {
    &mut bytes[rows.start * row_bytes..rows.end * row_bytes]
}

/// Splits the bytes of a chunk into those of its blocks.
fn split<'a>(mut bytes: &'a mut [u8], chunk: &[Range<usize>], row_bytes: usize) -> Vec<&'a mut [u8]> {
    let mut places = Vec::with_capacity(chunk.len());
    for rows in chunk {
        let (place, rest) = bytes.split_at_mut(rows.len() * row_bytes);
        places.push(place);
        bytes = rest;
    }
    places
}
