//! Reads the golden files of the weight kernels, and calls a backend on them.
//! Knows nothing of what is asserted. `tests/golden/kernels.py` and `tests/golden/modes.py` make the files.

use std::path::Path;

use weights::kernels::{Backend, Float, Lora, Mode, Packed, PackedMut, QuantSpec, Rows};
use weights::tensor::TensorFiles;

pub(crate) const FLOATS: [(&str, Float); 3] =
    [("float16", Float::F16), ("bfloat16", Float::Bf16), ("float32", Float::F32)];

pub(crate) fn golden(name: &str) -> TensorFiles {
    TensorFiles::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)).unwrap()
}

/// Returns the tensor `name` as rows: all dimensions but the last are rows.
pub(crate) fn rows(files: &TensorFiles, name: &str, float: Float) -> Rows {
    let columns = *files.get(name).unwrap().shape.last().unwrap();
    let mut rows = Rows::new(float, columns);
    rows.decode(float, columns, &files.read(name).unwrap());
    rows
}

/// Codes, scales and biases.
pub(crate) type Parts = [Vec<u8>; 3];

pub(crate) fn quantize(backend: &dyn Backend, weight: &Rows, spec: QuantSpec) -> Parts {
    let count = weight.values.len();
    let mut parts = [
        vec![0; spec.weight_bytes(count)],
        vec![0; spec.scale_bytes(count, weight.float)],
        vec![0; spec.bias_bytes(count, weight.float)],
    ];
    let [codes, scales, biases] = &mut parts;
    let out = PackedMut { weight: codes, scales, biases };
    backend.quantize(weight, spec, out).unwrap();
    parts
}

/// Dequantizes to `float`, and returns the bits of the values. All NaN have the same bits.
pub(crate) fn dequantize(
    backend: &dyn Backend,
    parts: &Parts,
    spec: QuantSpec,
    float: Float,
    columns: usize,
) -> Vec<u32> {
    let [weight, scales, biases] = parts;
    let mut rows = Rows::new(float, columns);
    backend.dequantize(Packed { spec, float, columns, weight, scales, biases }, &mut rows).unwrap();
    bits(&rows)
}

pub(crate) fn bits(rows: &Rows) -> Vec<u32> {
    rows.values.iter().map(|value| if value.is_nan() { u32::MAX } else { value.to_bits() }).collect()
}

/// Returns every spec of a mode.
pub(crate) fn specs_of(mode: Mode) -> impl Iterator<Item = QuantSpec> {
    mode.bits().iter().flat_map(move |&bits| {
        mode.group_sizes().iter().map(move |&group_size| QuantSpec { mode, bits, group_size })
    })
}

/// Returns every type and affine spec, with its name in the golden file.
pub(crate) fn affine() -> impl Iterator<Item = (&'static str, Float, QuantSpec, String)> {
    FLOATS.into_iter().flat_map(|(word, float)| {
        specs_of(Mode::Affine)
            .map(move |spec| (word, float, spec, format!("{word}/{}/{}", spec.bits, spec.group_size)))
    })
}

/// Returns every type and mode of small floats, with its name in the golden file.
pub(crate) fn modes() -> impl Iterator<Item = (&'static str, Float, QuantSpec, String)> {
    FLOATS.into_iter().flat_map(|(word, float)| {
        let modes = Mode::WORDS.into_iter().filter(|(_, mode)| *mode != Mode::Affine);
        modes.flat_map(move |(name, mode)| {
            specs_of(mode).map(move |spec| (word, float, spec, format!("{word}/{name}")))
        })
    })
}

/// Returns what MLX made: codes, scales and biases.
pub(crate) fn expected(files: &TensorFiles, name: &str) -> Parts {
    let part = |part: &str| files.get(&format!("q/{name}/{part}")).map(|_| format!("q/{name}/{part}"));
    ["weight", "scales", "biases"]
        .map(|word| part(word).map(|name| files.read(&name).unwrap()).unwrap_or_default())
}

/// Reads `lora_a` `[in, rank]` and `lora_b` `[rank, out]`, as an adapter is read.
pub(crate) fn lora(files: &TensorFiles) -> Lora {
    let (a, b) = (rows(files, "lora_a", Float::F32), rows(files, "lora_b", Float::F32));
    let rank = a.columns;
    let a = (0..rank).flat_map(|k| a.values.iter().skip(k).step_by(rank).copied()).collect();
    Lora { a, b: b.values, scale: 20.0, rank, magnitude: None }
}
