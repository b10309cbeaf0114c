//! The same bits on every instruction set, with any number of threads, and for any cut of the prompt.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it could not check"
)]

use std::fs;
use std::path::{Path, PathBuf};

use artifact::Digest;
use cpu::{Cpu, Simd};
use models::LanguageModel;

/// The prompt of all models: their vocabularies have more than 90 tokens.
fn prompt() -> Vec<u32> {
    (0..70).map(|index| index * 37 % 90).collect()
}

fn logits(cpu: &Cpu, folder: &Path, step: usize) -> Vec<u32> {
    let adapter = folder.join("adapter");
    let adapter = adapter.exists().then_some(adapter.as_path());
    let model = LanguageModel::load(cpu, folder, adapter).unwrap();
    model.logits(&prompt(), step).unwrap().into_iter().map(f32::to_bits).collect()
}

fn golden_models() -> Vec<PathBuf> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models");
    let folders = fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path());
    folders.filter(|path| path.is_dir()).collect()
}

#[test]
fn every_way_to_compute_gives_the_same_bits() {
    let sets: Vec<Simd> = Simd::ALL.iter().copied().filter(|set| set.is_there()).collect();
    for missing in Simd::ALL.iter().filter(|set| !sets.contains(set)) {
        eprintln!("not checked, because this processor lacks it: {missing:?}");
    }
    for folder in golden_models() {
        let expected = logits(&Cpu::new(1, sets[0]), &folder, 70);
        // A rope that grows with the text turns otherwise when the text is read in other pieces, as in mlx-lm.
        let grows = fs::read_to_string(folder.join("config.json")).unwrap().contains("\"dynamic\"");
        let ways = |simd: &Simd| [(1, *simd, 70), (8, *simd, 70), (8, *simd, 13), (1, *simd, 1)];
        for (threads, simd, step) in sets.iter().flat_map(ways).filter(|(_, _, step)| !grows || *step == 70) {
            let found = logits(&Cpu::new(threads, simd), &folder, step);
            let name = folder.display();
            assert!(found == expected, "{name}: {threads} threads, {simd:?}, steps of {step}");
        }
    }
}

/// The digest of the logits of the example's model with its adapter, on every machine. If it changes, results that were
/// shared or locked are not reproduced any more: then `protocol::CPU_ID` must change too.
const EXAMPLE: &str = "af01cec7acd8e8f4e0d2e64186bd0d95f9b0224d82b0910573b53ebdea24ae27";

#[test]
fn the_examples_logits_are_those_of_every_other_machine() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/tiny");
    let cpu = Cpu::default();
    let model =
        LanguageModel::load(&cpu, &example.join("base-4bit"), Some(&example.join("adapter"))).unwrap();
    let prompt: Vec<u32> = (0..70).map(|index| index * 37 % 500).collect();
    let logits = model.logits(&prompt, 512).unwrap();
    let bytes: Vec<u8> = logits.into_iter().flat_map(f32::to_le_bytes).collect();
    assert_eq!(Digest::of(&bytes).to_string(), EXAMPLE);
}
