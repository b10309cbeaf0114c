//! Both backends behind the trait of the weight kernels: MLX on the CPU must make the same bytes as `Cpu`.
//! MLX on the GPU may round differently, so the backend is part of a key.

#![cfg(not(target_os = "macos"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../weights/tests/samples/mod.rs"]
#[expect(dead_code, reason = "the golden outcomes are for the test of `weights`")]
mod samples;

use samples::{FLOATS, affine, dequantize, golden, lora, modes, quantize, rows};

use mlx::Mlx;
use weights::kernels::{Backend, Cpu, Float, Rows};

#[test]
fn quantize_and_dequantize_agree() {
    let cases =
        affine().map(|(word, float, spec, _)| ("quantize.safetensors", format!("w/{word}"), float, spec));
    let small =
        modes().map(|(word, float, spec, _)| ("modes.safetensors", format!("w/finite/{word}"), float, spec));
    for (file, name, float, spec) in cases.chain(small) {
        let weight = rows(&golden(file), &name, float);
        let ours = quantize(&Cpu::default(), &weight, spec);
        assert!(ours == quantize(&Mlx, &weight, spec), "quantize {name} to {spec} differs");
        let dense = dequantize(&Cpu::default(), &ours, spec, float, weight.columns);
        let theirs = dequantize(&Mlx, &ours, spec, float, weight.columns);
        assert!(dense == theirs, "dequantize {name} from {spec} differs");
    }
}

/// OpenBLAS fuses multiplication and addition, so only the last place of a sum may differ.
fn assert_near(ours: &Rows, theirs: &Rows, bound: f32) {
    let place = [2f32.powi(-10), 2f32.powi(-7), 2f32.powi(-22)][ours.float as usize];
    for (ours, theirs) in ours.values.iter().zip(&theirs.values) {
        assert!((ours - theirs).abs() <= ours.abs() * place + bound, "{ours} and {theirs}");
    }
}

#[test]
fn merge_agrees() {
    let files = golden("merge.safetensors");
    let lora = lora(&files);
    let largest = lora.a.iter().chain(&lora.b).fold(0f32, |most, value| most.max(value.abs()));
    for (word, float) in FLOATS {
        let (mut ours, mut theirs) =
            (rows(&files, &format!("w/{word}"), float), rows(&files, &format!("w/{word}"), float));
        Cpu::default().merge(&mut ours, &lora, 0).unwrap();
        Mlx.merge(&mut theirs, &lora, 0).unwrap();
        assert_near(&ours, &theirs, 20.0 * 4.0 * largest.powi(2) * 2f32.powi(-22));
    }
}

#[test]
fn dora_and_a_block_in_the_middle_agree() {
    let files = golden("merge.safetensors");
    let mut lora = lora(&files);
    let out = lora.b.len() / lora.rank;
    lora.magnitude = Some((0..out).map(|row| 1.0 + row as f32 / 8.0).collect());
    let mut all = rows(&files, "w/float32", Float::F32);
    let mut block = all.clone();
    block.values.drain(..3 * all.columns);
    let mut theirs = block.clone();
    Cpu::default().merge(&mut all, &lora, 0).unwrap();
    Cpu::default().merge(&mut block, &lora, 3).unwrap();
    assert_eq!(block.values, all.values[3 * all.columns..]);
    Mlx.merge(&mut theirs, &lora, 3).unwrap();
    assert_near(&block, &theirs, 1e-4);
}
