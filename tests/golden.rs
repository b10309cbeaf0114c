//! The weight kernels against MLX, bit for bit: against the golden files, and live against MLX itself.
//! How the files were made: `golden/kernels.py` and `golden/modes.py`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use pipeline::backend::{Backend, Cpu, Float, Grid, Lora, Mode, Packed, PackedMut, Rows};
use pipeline::tensor::TensorFiles;

const FLOATS: [(&str, Float); 3] =
    [("float16", Float::F16), ("bfloat16", Float::Bf16), ("float32", Float::F32)];

fn golden(name: &str) -> TensorFiles {
    TensorFiles::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap()
}

/// The tensor `name` as rows; all dimensions but the last are rows.
fn rows(files: &TensorFiles, name: &str, float: Float) -> Rows {
    let columns = *files.get(name).unwrap().shape.last().unwrap();
    let mut rows = Rows::new(float, columns);
    rows.decode(float, columns, &files.read(name).unwrap());
    rows
}

/// Codes, scales and biases.
type Parts = [Vec<u8>; 3];

fn quantize(backend: &dyn Backend, weight: &Rows, grid: Grid) -> Parts {
    let count = weight.values.len();
    let mut parts = [
        vec![0; grid.weight_bytes(count)],
        vec![0; grid.scale_bytes(count, weight.float)],
        vec![0; grid.bias_bytes(count, weight.float)],
    ];
    let [codes, scales, biases] = &mut parts;
    let out = PackedMut { weight: codes, scales, biases };
    backend.quantize(weight, grid, out).unwrap();
    parts
}

/// Dequantizes to `float`, and returns the bytes, in which NaN is not told from NaN.
fn dequantize(backend: &dyn Backend, parts: &Parts, grid: Grid, float: Float, columns: usize) -> Vec<u32> {
    let [weight, scales, biases] = parts;
    let mut rows = Rows::new(float, columns);
    backend.dequantize(Packed { grid, float, columns, weight, scales, biases }, &mut rows).unwrap();
    bits(&rows)
}

fn bits(rows: &Rows) -> Vec<u32> {
    rows.values.iter().map(|value| if value.is_nan() { u32::MAX } else { value.to_bits() }).collect()
}

/// Every grid of a mode.
fn grids(mode: Mode) -> impl Iterator<Item = Grid> {
    mode.bits().iter().flat_map(move |&bits| {
        mode.group_sizes().iter().map(move |&group_size| Grid { mode, bits, group_size })
    })
}

/// Every type and affine grid, with its name in the golden file.
fn affine() -> impl Iterator<Item = (&'static str, Float, Grid, String)> {
    FLOATS.into_iter().flat_map(|(word, float)| {
        grids(Mode::Affine)
            .map(move |grid| (word, float, grid, format!("{word}/{}/{}", grid.bits, grid.group_size)))
    })
}

/// Every type and mode of small floats, with its name in the golden file.
fn modes() -> impl Iterator<Item = (&'static str, Float, Grid, String)> {
    FLOATS.into_iter().flat_map(|(word, float)| {
        let modes = Mode::WORDS.into_iter().filter(|(_, mode)| *mode != Mode::Affine);
        modes.flat_map(move |(name, mode)| {
            grids(mode).map(move |grid| (word, float, grid, format!("{word}/{name}")))
        })
    })
}

/// What MLX made of it.
fn expected(files: &TensorFiles, name: &str) -> Parts {
    let part = |part: &str| files.get(&format!("q/{name}/{part}")).map(|_| format!("q/{name}/{part}"));
    ["weight", "scales", "biases"]
        .map(|word| part(word).map(|name| files.read(&name).unwrap()).unwrap_or_default())
}

#[test]
fn affine_is_as_in_mlx() {
    let files = golden("quantize.safetensors");
    for (word, float, grid, name) in affine() {
        let weight = rows(&files, &format!("w/{word}"), float);
        let parts = expected(&files, &name);
        assert!(quantize(&Cpu::default(), &weight, grid) == parts, "quantize {name} differs");
        let dense = bits(&rows(&files, &format!("dq/{name}"), float));
        assert!(
            dequantize(&Cpu::default(), &parts, grid, float, weight.columns) == dense,
            "dequantize {name} differs"
        );
    }
}

#[test]
fn small_floats_are_as_in_mlx() {
    let files = golden("modes.safetensors");
    for kind in ["finite", "stack"] {
        for (word, float, grid, name) in modes() {
            let weight = rows(&files, &format!("w/{kind}/{word}"), float);
            let parts = expected(&files, &format!("{kind}/{name}"));
            assert!(quantize(&Cpu::default(), &weight, grid) == parts, "quantize {kind}/{name} differs");
            for (to, float) in FLOATS {
                let dense = bits(&rows(&files, &format!("dq/{kind}/{name}/{to}"), float));
                let ours = dequantize(&Cpu::default(), &parts, grid, float, weight.columns);
                assert!(ours == dense, "dequantize {kind}/{name} to {to} differs");
            }
        }
    }
}

/// MLX makes different nonsense of them on different processors; `pipeline` finds them and refuses.
#[test]
fn what_is_not_finite_is_found() {
    let files = golden("modes.safetensors");
    for kind in ["nan", "inf", "negative-inf", "only-nan"] {
        for (word, float) in FLOATS {
            assert!(
                rows(&files, &format!("w/{kind}/{word}"), float).first_wild().is_some(),
                "{kind} in {word}"
            );
        }
    }
}

/// Reads `lora_a` [in, rank] and `lora_b` [rank, out] as an adapter is read.
fn lora(files: &TensorFiles) -> Lora {
    let (a, b) = (rows(files, "lora_a", Float::F32), rows(files, "lora_b", Float::F32));
    let rank = a.columns;
    let a = (0..rank).flat_map(|k| a.values.iter().skip(k).step_by(rank).copied()).collect();
    Lora { a, b: b.values, scale: 20.0, rank, magnitude: None }
}

#[test]
fn merges_in_the_promised_order() {
    let files = golden("merge.safetensors");
    for (word, float) in FLOATS {
        let mut merged = rows(&files, &format!("w/{word}"), float);
        Cpu::default().merge(&mut merged, &lora(&files), 0).unwrap();
        assert!(merged == rows(&files, &format!("ordered/{word}"), float), "{word} differs");
    }
}

/// Both backends behind the trait: MLX on the CPU must make the same bytes; its GPU may round differently, and says so
/// in the keys.
#[cfg(all(feature = "mlx", not(target_os = "macos")))]
mod conformance {
    use super::*;
    use pipeline::backend::Mlx;

    #[test]
    fn quantize_and_dequantize_agree() {
        let cases =
            affine().map(|(word, float, grid, _)| ("quantize.safetensors", format!("w/{word}"), float, grid));
        let small = modes()
            .map(|(word, float, grid, _)| ("modes.safetensors", format!("w/finite/{word}"), float, grid));
        for (file, name, float, grid) in cases.chain(small) {
            let weight = rows(&golden(file), &name, float);
            let ours = quantize(&Cpu::default(), &weight, grid);
            assert!(ours == quantize(&Mlx, &weight, grid), "quantize {name} to {grid} differs");
            let dense = dequantize(&Cpu::default(), &ours, grid, float, weight.columns);
            let theirs = dequantize(&Mlx, &ours, grid, float, weight.columns);
            assert!(dense == theirs, "dequantize {name} from {grid} differs");
        }
    }

    /// OpenBLAS fuses the multiply and the add, so the last place of a sum may differ; no more than that.
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
}
