//! `bits: auto`: chooses bits and rounding of each module, within the budget that `target_bits` is.
//! Knows nothing of which modules may be chosen for, nor of how damage is measured.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::AutoBits;
use super::allot::allot;
use super::chunk::Progress;
use super::run::{Rewrite, Target};
use super::target::specs;
use crate::Error;
use crate::checkpoint::{Checkpoint, record};
use crate::error::{OrBug, Result};
use crate::kernels::Float;
use artifact::Tick;

/// Chooses bits and rounding for the weights in `free`, whose values are their modules, and records them in
/// the section `quantization` of `config.json`.
pub(super) fn choose(
    auto: &AutoBits,
    rewrite: &mut Rewrite<'_>,
    free: &BTreeMap<String, String>,
    section: &mut Map<String, Value>,
    tick: Tick<'_>,
) -> Result<()> {
    let mut progress = Progress { done: 0, total: rewrite.checkpoint.stored(), tick };
    let mut ways = Vec::new();
    for name in free.keys() {
        ways.push(rewrite.survey(name, &auto.candidates, &mut progress)?);
    }
    let weights = rewrite.checkpoint.parameters();
    let fixed = rewrite.bytes(|name| !free.contains_key(name));
    let costs: Vec<Vec<_>> = ways.iter().map(|ways| ways.iter().map(|(_, cost)| *cost).collect()).collect();
    let chosen = allot(&costs, auto.target_bits.bytes(weights) - fixed as f64)
        .map_err(|least| out_of_reach(auto, fixed + least, weights))?;
    for (((name, module), ways), chosen) in free.iter().zip(&ways).zip(chosen) {
        let (way, _) = ways.get(chosen).or_bug("a module has the way that was chosen for it")?;
        if let Some(Target::Quantized(spec, _)) = rewrite.targets.get_mut(name) {
            *spec = way.spec;
        }
        rewrite.decided.insert(name.clone(), way.rounding);
        section.insert(module.clone(), record(way.spec));
    }
    Ok(())
}

/// Gives all weights in `free` the most bits with which the model is within the budget, or the fewest that there are.
/// It takes no look at the numbers, so what is chosen later may be smaller.
pub(super) fn guess(
    auto: &AutoBits,
    rewrite: &mut Rewrite<'_>,
    free: &BTreeMap<String, String>,
    section: &mut Map<String, Value>,
) {
    let budget = auto.target_bits.bytes(rewrite.checkpoint.parameters());
    for &bits in auto.candidates.iter().rev() {
        for (name, module) in free {
            if let Some(Target::Quantized(spec, _)) = rewrite.targets.get_mut(name) {
                spec.bits = bits;
                section.insert(module.clone(), record(*spec));
            }
        }
        if rewrite.bytes(|_| true) as f64 <= budget {
            return;
        }
    }
}

/// Checks that the fewest bits are within the budget. `targets` has them for all weights that may be chosen for.
/// The model at hand may be the base of the one that is quantized, which has the same shapes. Its floats may be
/// wider, so two bytes are counted for each.
pub(super) fn check(
    auto: &AutoBits,
    checkpoint: &Checkpoint,
    targets: &BTreeMap<String, Target>,
) -> Result<()> {
    let narrow = |target| match target {
        Target::Float(Float::F32) => Target::Float(Float::F16),
        Target::Quantized(spec, _) => Target::Quantized(spec, Float::F16),
        Target::Stored | Target::Float(_) => target,
    };
    let weights = checkpoint.weights().iter();
    let tensors = weights.flat_map(|(name, weight)| {
        let target = targets.get(name).copied().unwrap_or(Target::Stored);
        specs(name, weight, narrow(target))
    });
    let (least, weights) = (tensors.map(|tensor| tensor.length()).sum(), checkpoint.parameters());
    let is_within = least as f64 <= auto.target_bits.bytes(weights);
    if is_within { Ok(()) } else { Err(out_of_reach(auto, least, weights)) }
}

fn out_of_reach(auto: &AutoBits, least: u64, weights: u64) -> Error {
    Error::Options(format!(
        "`target_bits: {}` cannot be reached: with the fewest bits that `candidates` allow, the model has {:.2} bits per \
         weight, scales and unquantized tensors included",
        auto.target_bits,
        // Rounded up, so that the number can be asked for.
        (least as f64 * 800.0 / weights as f64).ceil() / 100.0
    ))
}
