//! The graph of nodes: all names are resolved, the kinds of the inputs fit, and there is no cycle.
//! Knows nothing of hashes, stores or the disk.

use std::collections::{BTreeMap, HashMap};

use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::manifest::{Input, Manifest, Node, Worker};
use crate::stage::{BASE_ROLE, DeviceChoice, FUSED_ROLE, Kind, Stage};
use text::nearest;
use text::yaml::Problem;
use weights::kernels::Rounding;

/// The index of a node in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

/// A directed graph of nodes, each made from others.
#[derive(Debug)]
pub struct Graph {
    nodes: Vec<Node>,
    /// Per node, its inputs in the order of `Node::inputs`.
    inputs: Vec<Vec<NodeId>>,
    /// Per node, how many of its inputs the pipeline file names. These come first; [`add_fine_tunings`] adds
    /// the others.
    written: Vec<usize>,
    /// All nodes, each after its inputs. Otherwise nodes that are written first come first.
    order: Vec<NodeId>,
    pools: BTreeMap<String, usize>,
    /// Per node, the number of the worker that makes it; `None` if it is made here.
    placed: Vec<Option<usize>>,
}

impl Graph {
    /// Resolves the names in a manifest and checks it.
    ///
    /// # Errors
    /// Fails if an input is not a node or has the wrong kind, or if the nodes form a cycle.
    pub fn check(manifest: Manifest) -> Result<Self, Problem> {
        let mut nodes = manifest.nodes;
        let ids: HashMap<&str, NodeId> =
            nodes.iter().enumerate().map(|(index, node)| (node.name.as_str(), NodeId(index))).collect();
        let mut inputs = Vec::with_capacity(nodes.len());
        for node in &nodes {
            let resolved = node.inputs.iter().map(|input| resolve(node, input, &ids, &nodes));
            inputs.push(resolved.collect::<Result<Vec<_>, _>>()?);
        }
        let order = sort(&nodes, &inputs)?;
        check_kept(&nodes, &inputs)?;
        let written = inputs.iter().map(Vec::len).collect();
        add_fine_tunings(&mut nodes, &mut inputs, &order);
        let placed = vec![None; nodes.len()];
        Ok(Self { nodes, inputs, written, order, pools: manifest.pools, placed })
    }

    /// Sets the values of the environment variables that are part of keys. `variable` returns the value of one.
    pub fn read_environment(&mut self, variable: &dyn Fn(&str) -> Option<String>) {
        for node in &mut self.nodes {
            if let Stage::Run(run) = &mut node.stage {
                run.key_env.iter_mut().for_each(|(name, value)| *value = variable(name));
            }
        }
    }

    /// Whether the key of a node depends on the environment.
    pub fn reads_environment(&self) -> bool {
        self.nodes.iter().any(|node| matches!(&node.stage, Stage::Run(run) if !run.key_env.is_empty()))
    }

    /// Returns how many nodes of each named pool may run at once.
    pub fn pools(&self) -> &BTreeMap<String, usize> {
        &self.pools
    }

    /// Returns the node with this index.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Decides where each node is made: by the first of `workers` that takes it, else here. The benchmarks whose device the
    /// pipeline file leaves open run on `device`, or on what their worker has.
    pub fn place(&mut self, workers: &[Worker], device: DeviceChoice) {
        for (node, placed) in self.nodes.iter_mut().zip(&mut self.placed) {
            *placed = workers.iter().position(|worker| worker.takes(node));
            if let Stage::Benchmark(benchmark) = &mut node.stage {
                let worker = placed.and_then(|number| workers.get(number));
                let asked = benchmark.device.or(device);
                benchmark.runs_on =
                    worker.map_or_else(|| asked.device(), |worker| worker.device.choose(asked));
            }
        }
    }

    /// Returns the number of the worker that makes a node; `None` if it is made here.
    pub fn placed(&self, id: NodeId) -> Option<usize> {
        self.placed.get(id.0).copied().flatten()
    }

    /// Returns the inputs of `id` with the role of each, including those that the pipeline file does not
    /// name.
    pub fn inputs(&self, id: NodeId) -> impl Iterator<Item = (&str, NodeId)> {
        self.edges(id).map(|(input, node)| (input.role.as_str(), node))
    }

    /// Returns the same inputs as [`Self::inputs`], as they are written.
    pub fn edges(&self, id: NodeId) -> impl Iterator<Item = (&Input, NodeId)> {
        self.nodes[id.0].inputs.iter().zip(self.inputs[id.0].iter().copied())
    }

    /// Returns the inputs of `id` that the pipeline file names. All other inputs are ancestors of these.
    pub fn written_inputs(&self, id: NodeId) -> impl Iterator<Item = (&str, NodeId)> {
        self.inputs(id).take(self.written[id.0])
    }

    /// Returns all nodes, each after its inputs.
    pub fn order(&self) -> &[NodeId] {
        &self.order
    }

    /// Returns the number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node at all.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Finds a node by name.
    ///
    /// # Errors
    /// Fails if there is no such node. The message suggests the most similar name.
    pub fn find(&self, name: &str) -> Result<NodeId, UnknownNode> {
        let found = self.nodes.iter().position(|node| node.name == name);
        found.map(NodeId).ok_or_else(|| {
            let nearest = nearest(name, self.nodes.iter().map(|node| node.name.as_str()));
            UnknownNode { name: name.to_owned(), hint: hint(nearest) }
        })
    }

    /// Returns `targets` and all their ancestors, each after its inputs.
    pub fn closure(&self, targets: &[NodeId]) -> Vec<NodeId> {
        let mut wanted = vec![false; self.nodes.len()];
        let mut stack = targets.to_vec();
        while let Some(id) = stack.pop() {
            if !std::mem::replace(&mut wanted[id.0], true) {
                stack.extend(&self.inputs[id.0]);
            }
        }
        self.order.iter().copied().filter(|id| wanted[id.0]).collect()
    }
}

impl NodeId {
    /// Returns the index, for tables with one entry per node.
    pub fn index(self) -> usize {
        self.0
    }
}

/// A name that is not a node of the pipeline file.
#[derive(Debug, thiserror::Error)]
#[error("there is no node `{name}`{hint}")]
pub struct UnknownNode {
    name: String,
    hint: String,
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |word| format!("; did you mean `{word}`?"))
}

fn resolve(
    node: &Node,
    input: &Input,
    ids: &HashMap<&str, NodeId>,
    nodes: &[Node],
) -> Result<NodeId, Problem> {
    let Some(&id) = ids.get(input.node.as_str()) else {
        let hint = hint(nearest(&input.node, ids.keys().copied()));
        let message = format!("node `{}` needs `{}`, which is not a node{hint}", node.name, input.node);
        return Err(Problem::new(input.at, message));
    };
    let (made, taken) = (nodes[id.0].stage.makes(), node.stage.takes(&input.role));
    // What a folder inside an artifact is shows when it is read.
    let Some(taken) = taken.filter(|taken| *taken != made && input.path.is_none()) else { return Ok(id) };
    let message = format!("`{}` must be {taken}, but node `{}` is {made}", input.role, input.node);
    Err(Problem::new(input.at, message))
}

/// Sorts the nodes so that inputs come first, with Kahn's algorithm: ready nodes are taken first in, first
/// out. If there is a cycle, fails with a problem that shows it.
fn sort(nodes: &[Node], inputs: &[Vec<NodeId>]) -> Result<Vec<NodeId>, Problem> {
    let mut missing: Vec<usize> = inputs.iter().map(Vec::len).collect();
    let mut dependents = vec![Vec::new(); nodes.len()];
    for (index, ids) in inputs.iter().enumerate() {
        for id in ids {
            dependents[id.0].push(NodeId(index));
        }
    }
    let mut order: Vec<_> = (0..nodes.len()).filter(|&index| missing[index] == 0).map(NodeId).collect();
    let mut next = 0;
    while let Some(&id) = order.get(next) {
        next += 1;
        for dependent in &dependents[id.0] {
            missing[dependent.0] -= 1;
            if missing[dependent.0] == 0 {
                order.push(*dependent);
            }
        }
    }
    if order.len() == nodes.len() { Ok(order) } else { Err(cycle(nodes, inputs)) }
}

/// Checks that the models whose fine-tuning a `quantize` node is to keep come from a `fuse` node.
fn check_kept(nodes: &[Node], inputs: &[Vec<NodeId>]) -> Result<(), Problem> {
    let asks = |node: &Node| matches!(&node.stage, Stage::Quantize(own) if own.rounding == Rounding::Keep);
    for (node, inputs) in nodes.iter().zip(inputs).filter(|(node, _)| asks(node)) {
        for (input, id) in node.inputs.iter().zip(inputs) {
            let made = &nodes[id.0].stage;
            if made.makes() == Kind::Model && !matches!(made, Stage::Fuse(_)) {
                let (name, word) = (&input.node, made.word());
                let message = format!(
                    "`rounding: keep` keeps what a `fuse` node has just added, but `{name}` is a `{word}` node: name the \
                     `fuse` node, or leave `rounding` out"
                );
                return Err(Problem::new(input.at, message));
            }
        }
    }
    Ok(())
}

/// For a `quantize` node below a `fuse` node, adds the inputs that it needs to measure how much of the
/// fine-tuning survives. The model of the nearest `fuse` node becomes the input `base`. If other `quantize`
/// nodes lie between, the `fuse` node itself becomes the input `fused`. Both are ancestors already, so there
/// is no new cycle and the order stays valid.
fn add_fine_tunings(nodes: &mut [Node], inputs: &mut [Vec<NodeId>], order: &[NodeId]) {
    let mut fused: Vec<Option<NodeId>> = vec![None; nodes.len()];
    for &NodeId(index) in order {
        match (&nodes[index].stage, inputs[index].first()) {
            (Stage::Fuse(_), _) => fused[index] = Some(NodeId(index)),
            (Stage::Quantize(_), Some(model)) => fused[index] = fused[model.0],
            _ => {}
        }
        let (Some(fuse), Stage::Quantize(_)) = (fused[index], &nodes[index].stage) else { continue };
        let apart = (inputs[index][0] != fuse).then_some((FUSED_ROLE, fuse, None));
        let base = (BASE_ROLE, inputs[fuse.0][0], nodes[fuse.0].inputs[0].path.clone());
        for (role, input, path) in apart.into_iter().chain([base]) {
            let (node, at) = (nodes[input.0].name.clone(), nodes[index].at);
            nodes[index].inputs.push(Input { role: role.to_owned(), node, at, path });
            inputs[index].push(input);
        }
    }
}

/// Finds a cycle and returns a problem that shows all its nodes.
fn cycle(nodes: &[Node], inputs: &[Vec<NodeId>]) -> Problem {
    let mut graph = DiGraph::<(), ()>::new();
    let indices: Vec<_> = nodes.iter().map(|_| graph.add_node(())).collect();
    for (index, ids) in inputs.iter().enumerate() {
        graph.extend_with_edges(ids.iter().map(|id| (indices[index], indices[id.0])));
    }
    let within: Vec<NodeIndex> = tarjan_scc(&graph)
        .into_iter()
        .find(|component| {
            component.len() > 1 || component.iter().any(|node| graph.contains_edge(*node, *node))
        })
        .expect("BUG: a graph that cannot be sorted has a cycle");
    let first = within.iter().map(|node| node.index()).min().expect("BUG: a component has a node");
    // In a strongly connected component, every node has an input in the component. So following the inputs
    // must reach a node for the second time.
    let mut path = vec![first];
    let around = loop {
        let last = path[path.len() - 1];
        let next = inputs[last].iter().find(|id| within.iter().any(|node| node.index() == id.0));
        let next = next.expect("BUG: a node of a cycle has an input in it").0;
        if let Some(start) = path.iter().position(|&seen| seen == next) {
            break &path[start..];
        }
        path.push(next);
    };
    let mut names: Vec<_> = around.iter().map(|&index| nodes[index].name.as_str()).collect();
    names.push(names[0]);
    Problem::new(nodes[around[0]].at, format!("dependency cycle: {}", names.join(" -> ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(nodes: &str) -> Result<Graph, Problem> {
        Graph::check(Manifest::parse(&format!("version: 1\nnodes:\n{nodes}")).unwrap())
    }

    #[test]
    fn inputs_come_first() {
        let graph =
            check("  q: {stage: quantize, model: b, bits: 4}\n  b: {stage: base, source: s}").unwrap();
        let names: Vec<_> = graph.order().iter().map(|id| graph.node(*id).name.as_str()).collect();
        assert_eq!(names, ["b", "q"]);
    }

    #[test]
    fn prints_a_cycle_whole() {
        let step =
            |name: &str, model: &str| format!("  {name}: {{stage: quantize, bits: 4, model: {model}}}\n");
        let nodes = step("x", "a") + &step("a", "b") + &step("b", "c") + &step("c", "a");
        assert_eq!(check(&nodes).unwrap_err().message, "dependency cycle: a -> b -> c -> a");
        assert_eq!(check(&step("a", "a")).unwrap_err().message, "dependency cycle: a -> a");
    }

    #[test]
    fn what_is_quantized_knows_where_it_was_fine_tuned() {
        let fuse =
            |name: &str, model: &str| format!("  {name}: {{stage: fuse, model: {model}, adapter: l}}\n");
        let quantize =
            |name: &str, model: &str| format!("  {name}: {{stage: quantize, bits: 4, model: {model}}}\n");
        let nodes = "  b: {stage: base, source: s}\n  l: {stage: adapter, source: s}\n".to_owned()
            + &(quantize("p", "b") + &quantize("r", "q") + &quantize("q", "f") + &fuse("f", "p"))
            + &(fuse("g", "r") + &quantize("t", "g"));
        let graph = check(&nodes).unwrap();
        let inputs = |name: &str| {
            let id = graph.find(name).unwrap();
            let inputs = graph.inputs(id).map(|(role, id)| format!("{role}={}", graph.node(id).name));
            assert_eq!(
                graph.written_inputs(id).count(),
                graph.inputs(id).take_while(|(role, _)| *role == "model").count()
            );
            inputs.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(inputs("p"), "model=b");
        assert_eq!(inputs("q"), "model=f base=p");
        assert_eq!(inputs("r"), "model=q fused=f base=p");
        // The nearest `fuse` node is used.
        assert_eq!(inputs("t"), "model=g base=r");
    }

    #[test]
    fn only_what_was_fused_is_kept() {
        let nodes =
            "  b: {stage: base, source: s}\n  q: {stage: quantize, model: b, bits: 4, rounding: keep}";
        let expected = "`rounding: keep` keeps what a `fuse` node has just added, but `b` is a `base` node: name the \
                        `fuse` node, or leave `rounding` out";
        assert_eq!(check(nodes).unwrap_err().message, expected);
    }

    #[test]
    fn kinds_must_fit() {
        let nodes = "  l: {stage: adapter, source: s}\n  q: {stage: quantize, model: l, bits: 4}";
        assert_eq!(check(nodes).unwrap_err().message, "`model` must be a model, but node `l` is an adapter");
    }

    #[test]
    fn suggests_the_nearest_node() {
        let nodes = "  base: {stage: base, source: s}\n  q: {stage: quantize, model: bas, bits: 4}";
        let expected = "node `q` needs `bas`, which is not a node; did you mean `base`?";
        assert_eq!(check(nodes).unwrap_err().message, expected);
    }
}
