//! What a build will take: bytes on the disk, memory and time, found without computing a weight.
//! Knows nothing of how this is shown, nor of what follows if there is not enough.
//!
//! The size of what `fuse` and `quantize` make is that of its outline: all files, with holes for the numbers. An outline
//! is made in a temporary folder and takes no space there. The next node of a chain is outlined from the outline before it.

mod outline;
mod peak;
mod times;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::error::Result;
use crate::graph::NodeId;
use crate::machine;
use crate::plan::{Decision, Planner, Verdict};
use crate::stage::{Kind, Stage};
use crate::store::free_bytes;
use outline::Outlines;
use peak::{Step, peak};
use times::Times;

/// What the memory of a benchmark is for each byte of a model: it is loaded whole, and some is needed beside it.
const LOADED: f64 = 1.15;

/// What a build will take.
#[derive(Clone, Debug, Serialize)]
pub struct Forecast {
    /// What each node takes that will run or be fetched.
    pub nodes: Vec<NodeForecast>,
    /// Whether it may be less: a node that was made before waits for an input, which may come out as it was.
    pub is_most: bool,
    /// How many bytes are written in all, as far as it is known.
    pub written_bytes: u64,
    /// How many of them are on the disk at once, at most.
    pub peak_disk_bytes: u64,
    /// How many bytes are free on the disk of the cache.
    pub free_disk_bytes: Option<u64>,
    /// The most memory that one node needs, roughly.
    pub peak_memory_bytes: u64,
    /// How much memory this machine has.
    pub memory_bytes: Option<u64>,
    /// How long it takes, roughly: the sum over the nodes whose time is known.
    pub seconds: f64,
}

/// What one node takes.
#[derive(Clone, Debug, Serialize)]
pub struct NodeForecast {
    /// The node.
    #[serde(skip)]
    pub id: NodeId,
    /// Its name.
    pub node: String,
    /// How many bytes it writes, or fetches.
    #[serde(flatten)]
    pub size: Size,
    /// How much memory it needs, if that is known.
    pub memory_bytes: Option<u64>,
    /// How long it takes, if an earlier run on this machine tells.
    pub seconds: Option<f64>,
}

/// How many bytes a node writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "size", content = "bytes", rename_all = "snake_case")]
pub enum Size {
    /// So many; of a `quantize` node without `survival.json`.
    Exact(u64),
    /// About so many: as many as its last run here wrote, or as far as what it is made from is known.
    About(u64),
    /// That is not known.
    Unknown,
}

impl Size {
    /// Returns the bytes, or nothing if they are not known.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Exact(bytes) | Self::About(bytes) => bytes,
            Self::Unknown => 0,
        }
    }
}

impl Forecast {
    /// Says why the build does not fit, if it does not.
    pub fn problem(&self) -> Option<String> {
        use text::units::bytes;
        let needs = |what: &str, much: u64, there: u64| {
            format!("the build does not fit: {what} {}, and there are {}", bytes(much), bytes(there))
        };
        let free = self.free_disk_bytes.filter(|free| *free < self.peak_disk_bytes);
        if let Some(free) = free {
            let words = needs("it writes up to", self.peak_disk_bytes, free);
            return Some(format!(
                "{words} free on the disk; `temporary: true` lets the files of a node go when they are not needed any more, and `pipeline gc` removes what is not current"
            ));
        }
        let memory = self.memory_bytes.filter(|memory| *memory < self.peak_memory_bytes)?;
        let name =
            self.nodes.iter().max_by_key(|node| node.memory_bytes).map_or("", |node| node.node.as_str());
        let words = needs("it needs about", self.peak_memory_bytes, memory);
        Some(format!("{words} of memory in this machine; node `{name}` needs most"))
    }
}

/// Forecasts what the build of `decisions` takes, with so many stages at once. `times` says whether to read how long
/// earlier runs took.
///
/// # Errors
/// Fails if a temporary folder cannot be written, or if the records cannot be read.
pub(crate) fn forecast(
    planner: &mut Planner<'_>,
    decisions: &[Decision],
    jobs: usize,
    times: bool,
) -> Result<Forecast> {
    let mut outlines = Outlines::new(decisions)?;
    let times = if times { Times::read(planner.store)? } else { Times::default() };
    let mut nodes = Vec::new();
    let mut sizes = BTreeMap::new();
    for decision in decisions {
        let size = match decision.verdict {
            Verdict::Stale | Verdict::Waits => size_of(planner, decision, &mut outlines)?,
            Verdict::Remote => Size::Exact(decision.artifact.as_ref().map_or(0, artifact::Artifact::size)),
            Verdict::Fresh | Verdict::Cached | Verdict::Recorded => {
                sizes.extend(decision.artifact.as_ref().map(|artifact| (decision.id, artifact.size())));
                continue;
            }
        };
        let source = decision.source_files.as_ref().map(artifact::Artifact::size);
        sizes.insert(decision.id, source.unwrap_or(size.bytes()));
        let node = planner.graph.node(decision.id);
        nodes.push(NodeForecast {
            id: decision.id,
            node: node.name.clone(),
            size,
            memory_bytes: memory_of(planner, decision, &sizes, &outlines),
            seconds: match decision.verdict {
                Verdict::Remote => None,
                _ => times.of(planner, decision.id, size),
            },
        });
    }
    let steps = nodes.iter().map(|node| Step::new(planner, node, decisions)).collect::<Vec<_>>();
    let may_stay = |decision: &Decision| {
        let name = &planner.graph.node(decision.id).name;
        decision.verdict == Verdict::Waits && planner.state.nodes.get(name).is_some()
    };
    let is_most = decisions.iter().any(may_stay);
    Ok(Forecast {
        is_most,
        written_bytes: nodes.iter().map(|node| node.size.bytes()).sum(),
        peak_disk_bytes: peak(&steps, jobs),
        free_disk_bytes: free_bytes(planner.store.root()),
        peak_memory_bytes: nodes.iter().filter_map(|node| node.memory_bytes).max().unwrap_or(0),
        memory_bytes: machine::memory_bytes(),
        seconds: nodes.iter().filter_map(|node| node.seconds).fold(0.0, |sum, seconds| sum + seconds),
        nodes,
    })
}

/// Whether the build surely fits, without a look at what it makes: a model has at most eight times the bytes of the largest
/// source, and there is room for as many of them as nodes run.
pub(crate) fn fits_surely(planner: &Planner<'_>, decisions: &[Decision]) -> bool {
    let largest = decisions
        .iter()
        .filter(|decision| planner.graph.node(decision.id).stage.is_reference())
        .filter_map(|decision| decision.artifact.as_ref().or(decision.source_files.as_ref()))
        .map(artifact::Artifact::size)
        .max()
        .unwrap_or(0);
    let is_known = decisions.iter().all(|decision| {
        let stage = &planner.graph.node(decision.id).stage;
        !decision.is_stale() || !stage.is_reference() || decision.source_files.is_some()
    });
    let stale = decisions.iter().filter(|decision| decision.is_stale()).count() as u64;
    let most = largest.saturating_mul(8);
    let disk = free_bytes(planner.store.root()).is_none_or(|free| free > most.saturating_mul(stale));
    let memory = machine::memory_bytes().is_none_or(|memory| memory > most.saturating_mul(2));
    is_known && disk && memory
}

fn size_of(planner: &mut Planner<'_>, decision: &Decision, outlines: &mut Outlines) -> Result<Size> {
    let node = planner.graph.node(decision.id);
    let last = planner.state.nodes.get(&node.name).map(|built| built.artifact.size());
    let as_before = last.map_or(Size::Unknown, Size::About);
    Ok(match &node.stage {
        // A reference stays where it is.
        stage if stage.is_reference() => Size::Exact(0),
        Stage::Fuse(_) | Stage::Quantize(_) => outlines.make(planner, decision.id)?.unwrap_or(as_before),
        _ => as_before,
    })
}

/// Returns how much memory a node needs.
fn memory_of(
    planner: &Planner<'_>,
    decision: &Decision,
    sizes: &BTreeMap<NodeId, u64>,
    outlines: &Outlines,
) -> Option<u64> {
    let node = planner.graph.node(decision.id);
    if !decision.is_stale() {
        return None;
    }
    match &node.stage {
        Stage::Fuse(_) | Stage::Quantize(_) => outlines.memory(decision.id),
        Stage::Benchmark(_) | Stage::Probe(_) => {
            let models = planner.graph.inputs(decision.id);
            let models = models.filter(|(role, _)| node.stage.takes(role) == Some(Kind::Model));
            let largest = models.filter_map(|(_, input)| sizes.get(&input)).max()?;
            #[expect(clippy::cast_possible_truncation, reason = "a size with a factor is a size")]
            Some((*largest as f64 * LOADED) as u64)
        }
        _ => None,
    }
}

/// Returns the size of all files below `folder`.
fn size_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
