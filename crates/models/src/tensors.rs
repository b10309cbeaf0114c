//! The weights of a checkpoint, by name. Each is handed out once, to the module that owns it.
//! Does not know which names an architecture has, nor how a runtime keeps weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::adapter::{Adapter, ExpertsLora, Lora};
use super::observer::Observer;
use super::runtime::{RopeArgs, Runtime, Stored};
use weights::adapter::Whole;
use weights::checkpoint::{Checkpoint, Part, Weight, WeightKind};
use weights::kernels::Float;

/// The weights that no module has taken yet.
pub(crate) struct Tensors<'a, R: Runtime> {
    runtime: &'a R,
    folder: PathBuf,
    checkpoint: Checkpoint,
    weights: R::Weights,
    taken: BTreeSet<String>,
    adapter: Option<Adapter>,
    observer: Option<Observer>,
    /// The whole tensors of the adapter, which replace weights: they are float.
    replaced: BTreeMap<String, Whole>,
    ropes: Vec<(RopeArgs, R::Rope)>,
}

impl<'a, R: Runtime> Tensors<'a, R> {
    /// Opens the files of the checkpoint in `folder`.
    pub(crate) fn open(
        runtime: &'a R,
        folder: &Path,
        checkpoint: Checkpoint,
        (mut adapter, observer): (Option<Adapter>, Option<Observer>),
    ) -> Result<Self> {
        let weights = runtime.open(&checkpoint)?;
        let replaced = adapter.as_mut().map(Adapter::take_whole).unwrap_or_default();
        let folder = folder.to_path_buf();
        Ok(Self {
            runtime,
            folder,
            checkpoint,
            weights,
            taken: BTreeSet::new(),
            adapter,
            observer,
            replaced,
            ropes: Vec::new(),
        })
    }

    /// Returns who wants to know the inputs of the layers, if somebody does.
    pub(crate) fn observer(&self) -> Option<Observer> {
        self.observer.clone()
    }

    pub(crate) fn runtime(&self) -> &'a R {
        self.runtime
    }

    /// Returns a rotary position embedding. Layers with the same arguments share one.
    pub(crate) fn rope(&mut self, args: &RopeArgs) -> Result<R::Rope> {
        if let Some((_, rope)) = self.ropes.iter().find(|(known, _)| known == args) {
            return Ok(rope.clone());
        }
        let rope = self.runtime.rope(args)?;
        self.ropes.push((args.clone(), rope.clone()));
        Ok(rope)
    }

    /// Takes the float weight `name`, and replaces each number by what `map` makes of it, in float32.
    pub(crate) fn take_mapped(
        &mut self,
        name: &str,
        shape: &[i32],
        map: impl Fn(f32) -> Vec<f32>,
    ) -> Result<R::Tensor> {
        let stored = self.take(name, shape)?;
        let numbers: Vec<f32> = self.runtime.numbers(&stored)?.into_iter().flat_map(map).collect();
        let mut bytes = vec![0; numbers.len() * Float::F32.size()];
        Float::F32.encode(&numbers, &mut bytes);
        self.runtime.vector_of(&Whole { float: Float::F32, shape: vec![numbers.len()], bytes })
    }

    /// Takes the float weight `name`, which must have this shape.
    pub(crate) fn take(&mut self, name: &str, shape: &[i32]) -> Result<R::Tensor> {
        if let Some(whole) = self.take_replaced(name, shape)? {
            return self.runtime.vector_of(&whole).with_context(|| name.to_owned());
        }
        let (runtime, weights, stored) = self.stored(name, shape)?;
        let WeightKind::Float(_) = stored.weight.kind else {
            bail!("tensor {name} is {:?}, a float was expected", stored.weight.kind);
        };
        runtime.vector(weights, stored).with_context(|| name.to_owned())
    }

    /// Takes the matrix `path.weight`, or a stack of them. It is float or quantized, and has this shape before
    /// packing.
    pub(crate) fn matrix(&mut self, path: &str, shape: &[i32]) -> Result<R::Matrix> {
        let name = format!("{path}.weight");
        if let Some(whole) = self.take_replaced(&name, shape)? {
            return self.runtime.matrix_of(&whole).context(name);
        }
        let (runtime, weights, stored) = self.stored(&name, shape)?;
        if let WeightKind::Other(element) = stored.weight.kind {
            bail!("tensor {name} is {element:?}, a float was expected");
        }
        runtime.matrix(weights, stored).with_context(|| name.clone())
    }

    /// Takes the adapter's update of the module at `path`, if it has one.
    pub(crate) fn take_lora(
        &mut self,
        path: &str,
        weight: &R::Matrix,
        shape: [i32; 2],
    ) -> Result<Option<Lora<R>>> {
        let runtime = self.runtime;
        self.adapter.as_mut().map_or(Ok(None), |adapter| adapter.take(runtime, path, weight, shape))
    }

    /// Takes the adapter's updates of the stack of experts at `path`, if it has any.
    pub(crate) fn take_experts_lora(
        &mut self,
        path: &str,
        shape: [i32; 3],
    ) -> Result<Option<ExpertsLora<R>>> {
        let runtime = self.runtime;
        self.adapter.as_mut().map_or(Ok(None), |adapter| adapter.take_experts(runtime, path, shape))
    }

    /// Fails if a weight was not taken. Then reads all weights that were taken and are not in memory yet.
    pub(crate) fn finish(self) -> Result<()> {
        let weights = self.checkpoint.weights().iter().filter(|(name, _)| !self.taken.contains(*name));
        let leftover: BTreeSet<&String> = weights.map(|(name, _)| name).collect();
        if let Some(first) = leftover.first() {
            let count = leftover.len();
            bail!("{}: {count} unknown tensors, the first is {first}", self.folder.display());
        }
        if let Some(adapter) = self.adapter {
            adapter.finish()?;
        }
        self.runtime.finish(self.weights).with_context(|| format!("reading {}", self.folder.display()))
    }

    /// Takes the adapter's tensor that replaces the weight `name`, if it has one.
    fn take_replaced(&mut self, name: &str, shape: &[i32]) -> Result<Option<Whole>> {
        let Some(whole) = self.replaced.remove(name) else { return Ok(None) };
        ensure_shape(&self.folder, name, &whole.shape, shape)?;
        self.taken.insert(name.to_owned());
        Ok(Some(whole))
    }

    /// Returns the weight `name`, which must have this shape before packing, and marks it as taken.
    fn stored<'b>(
        &'b mut self,
        name: &'b str,
        shape: &[i32],
    ) -> Result<(&'a R, &'b mut R::Weights, Stored<'b>)> {
        let weight = self.checkpoint.weights().get(name).filter(|_| !self.taken.contains(name));
        let missing =
            || format!("{}: no tensor {}", self.folder.display(), Weight::tensor(name, Part::Weight));
        let weight = weight.with_context(missing)?;
        ensure_shape(&self.folder, name, &weight.shape, shape)?;
        self.taken.insert(name.to_owned());
        let stored = Stored { checkpoint: &self.checkpoint, name, weight };
        Ok((self.runtime, &mut self.weights, stored))
    }
}

fn ensure_shape(folder: &Path, name: &str, found: &[usize], wanted: &[i32]) -> Result<()> {
    let sides = wanted.iter().map(|side| usize::try_from(*side)).collect::<Result<Vec<_>, _>>()?;
    let folder = folder.display();
    ensure!(found == sides, "{folder}: {name} has shape {found:?}, config.json wants {wanted:?}");
    Ok(())
}
