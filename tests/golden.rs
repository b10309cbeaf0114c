//! The weight kernels against MLX, bit for bit: against the golden files, and live against MLX itself.
//! How the files were made: `golden/kernels.py`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use pipeline::backend::{Backend, Cpu, Float, Grid, Lora, Matrix, Quantized};
use pipeline::tensor::TensorFiles;

const FLOATS: [(&str, Float); 3] =
    [("float16", Float::F16), ("bfloat16", Float::Bf16), ("float32", Float::F32)];
const BITS: [usize; 6] = [2, 3, 4, 5, 6, 8];
const GROUP_SIZES: [usize; 3] = [32, 64, 128];

fn golden(name: &str) -> TensorFiles {
    TensorFiles::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap()
}

fn matrix(files: &TensorFiles, name: &str, float: Float) -> Matrix {
    let columns = *files.get(name).unwrap().shape.last().unwrap();
    Matrix { float, columns, bytes: files.read(name).unwrap() }
}

fn floats(files: &TensorFiles, name: &str) -> Vec<f32> {
    let bytes = files.read(name).unwrap();
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[cfg(all(feature = "mlx", not(target_os = "macos")))]
fn decode(matrix: &Matrix) -> Vec<f32> {
    let mut values = vec![0.0; matrix.bytes.len() / matrix.float.size()];
    matrix.float.decode(&matrix.bytes, &mut values);
    values
}

/// Every type, number of bits and group size, with its name in the golden file.
fn grids() -> impl Iterator<Item = (&'static str, Float, Grid, String)> {
    FLOATS.into_iter().flat_map(|(word, float)| {
        BITS.into_iter().flat_map(move |bits| {
            GROUP_SIZES.into_iter().map(move |group_size| {
                (word, float, Grid { bits, group_size }, format!("{word}/{bits}/{group_size}"))
            })
        })
    })
}

fn quantized(files: &TensorFiles, name: &str, float: Float, grid: Grid, columns: usize) -> Quantized {
    let side = |part: &str| matrix(files, &format!("q/{name}/{part}"), float);
    let weight = files.read(&format!("q/{name}/weight")).unwrap();
    Quantized { grid, columns, weight, scales: side("scales"), biases: side("biases") }
}

#[test]
fn quantizes_as_mlx_does() {
    let files = golden("quantize.safetensors");
    for (word, float, grid, name) in grids() {
        let weight = matrix(&files, &format!("w/{word}"), float);
        let expected = quantized(&files, &name, float, grid, weight.columns);
        assert!(Cpu::default().quantize(&weight, grid).unwrap() == expected, "{name} differs");
    }
}

#[test]
fn dequantizes_as_mlx_does() {
    let files = golden("quantize.safetensors");
    for (word, float, grid, name) in grids() {
        let columns = matrix(&files, &format!("w/{word}"), float).columns;
        let dense = Cpu::default().dequantize(&quantized(&files, &name, float, grid, columns)).unwrap();
        assert!(dense == matrix(&files, &format!("dq/{name}"), float), "{name} differs");
    }
}

/// Reads `lora_a` [in, rank] and `lora_b` [rank, out] as the adapter stage does.
fn lora(files: &TensorFiles) -> Lora {
    let (a, b) = (floats(files, "lora_a"), floats(files, "lora_b"));
    let rank = files.get("lora_b").unwrap().shape[0];
    let a = (0..rank).flat_map(|k| a.iter().skip(k).step_by(rank).copied()).collect();
    Lora { a, b, scale: 20.0, rank }
}

#[test]
fn merges_in_the_promised_order() {
    let files = golden("merge.safetensors");
    for (word, float) in FLOATS {
        let merged =
            Cpu::default().merge(matrix(&files, &format!("w/{word}"), float), &lora(&files)).unwrap();
        assert!(merged == matrix(&files, &format!("ordered/{word}"), float), "{word} differs");
    }
}

/// MLX on the CPU must make the same bytes; its GPU may round differently, and says so in the keys.
#[cfg(all(feature = "mlx", not(target_os = "macos")))]
#[test]
fn mlx_itself_agrees() {
    use pipeline::backend::Mlx;

    let files = golden("quantize.safetensors");
    for (word, float, grid, name) in grids() {
        let weight = matrix(&files, &format!("w/{word}"), float);
        let ours = Cpu::default().quantize(&weight, grid).unwrap();
        assert!(ours == Mlx.quantize(&weight, grid).unwrap(), "quantize {name} differs");
        assert!(
            Cpu::default().dequantize(&ours).unwrap() == Mlx.dequantize(&ours).unwrap(),
            "dequantize {name} differs"
        );
    }
    let files = golden("merge.safetensors");
    for (word, float) in FLOATS {
        let weight = || matrix(&files, &format!("w/{word}"), float);
        let (ours, theirs) =
            (Cpu::default().merge(weight(), &lora(&files)), Mlx.merge(weight(), &lora(&files)));
        // OpenBLAS fuses the multiply and the add, so the last place of a sum may differ; no more than that.
        let sum = lora(&files)
            .a
            .iter()
            .chain(&lora(&files).b)
            .fold(0f32, |most, value| most.max(value.abs()))
            .powi(2);
        let bound = 20.0 * 4.0 * sum * 2f32.powi(-22);
        for (ours, theirs) in decode(&ours.unwrap()).into_iter().zip(decode(&theirs.unwrap())) {
            let last_place = ours.abs() * [2f32.powi(-10), 2f32.powi(-7), 2f32.powi(-22)][float as usize];
            assert!((ours - theirs).abs() <= last_place + bound, "merge {word}: {ours} and {theirs}");
        }
    }
}

#[test]
fn threads_do_not_matter() {
    let files = golden("quantize.safetensors");
    let weight = matrix(&files, "w/float16", Float::F16);
    let grid = Grid { bits: 3, group_size: 32 };
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| Cpu::default().quantize(&weight, grid).unwrap())
    };
    assert!(with(1) == with(8));
}
