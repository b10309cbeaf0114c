//! The weight kernels compared with MLX, bit for bit, by golden files.
//! Knows nothing of MLX itself; `crates/models/tests/backend.rs` runs it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod samples;

use samples::{FLOATS, affine, bits, dequantize, expected, golden, lora, modes, quantize, rows, specs_of};

use weights::kernels::{Backend, Cpu, Directions, Dither, Mode, Packed, PackedMut, QuantSpec, Rows};

/// The length of the rows in `keep.safetensors`, which has bfloat16 as plain bits.
const KEPT_COLUMNS: usize = 128;

#[test]
fn affine_is_as_in_mlx() {
    let files = golden("quantize.safetensors");
    for (word, float, spec, name) in affine() {
        let weight = rows(&files, &format!("w/{word}"), float);
        let parts = expected(&files, &name);
        assert!(quantize(&Cpu::default(), &weight, spec) == parts, "quantize {name} differs");
        let dense = bits(&rows(&files, &format!("dq/{name}"), float));
        assert!(
            dequantize(&Cpu::default(), &parts, spec, float, weight.columns) == dense,
            "dequantize {name} differs"
        );
    }
}

#[test]
fn small_floats_are_as_in_mlx() {
    let files = golden("modes.safetensors");
    for kind in ["finite", "stack"] {
        for (word, float, spec, name) in modes() {
            let weight = rows(&files, &format!("w/{kind}/{word}"), float);
            let parts = expected(&files, &format!("{kind}/{name}"));
            assert!(quantize(&Cpu::default(), &weight, spec) == parts, "quantize {kind}/{name} differs");
            for (to, float) in FLOATS {
                let dense = bits(&rows(&files, &format!("dq/{kind}/{name}/{to}"), float));
                let ours = dequantize(&Cpu::default(), &parts, spec, float, weight.columns);
                assert!(ours == dense, "dequantize {kind}/{name} to {to} differs");
            }
        }
    }
}

/// MLX gives different results for such values on different processors, so `pipeline` finds and refuses them.
#[test]
fn what_is_not_finite_is_found() {
    let files = golden("modes.safetensors");
    for kind in ["nan", "inf", "negative-inf", "only-nan"] {
        for (word, float) in FLOATS {
            assert!(
                rows(&files, &format!("w/{kind}/{word}"), float).first_out_of_range().is_some(),
                "{kind} in {word}"
            );
        }
    }
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

/// Weights that were updated are rounded on the grid of their base, or on a finer one with the same points.
#[test]
fn keeps_as_the_reference_does() {
    let files = golden("keep.safetensors");
    let values = files.read("directions").unwrap();
    let values: Vec<_> = values.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    let directions = Directions { count: values.len() / KEPT_COLUMNS, values };
    let (mut count, mut settled_count) = (0, 0);
    for (_, float, base, name) in affine() {
        let part = |place: &str, part: &str| files.read(&format!("{place}/{name}{part}")).unwrap();
        let [weight, scales, biases] = ["/weight", "/scales", "/biases"].map(|word| part("base", word));
        let mut updated = Rows::new(float, KEPT_COLUMNS);
        updated.decode(float, KEPT_COLUMNS, &part("updated", ""));
        let packed = Packed {
            spec: base,
            float,
            columns: KEPT_COLUMNS,
            weight: &weight,
            scales: &scales,
            biases: &biases,
        };
        for spec in specs_of(Mode::Affine).filter(|spec| spec.bits_beyond(base).is_some()) {
            let kept = |word: &str| part("kept", &format!("/{}/{word}", spec.bits));
            let expected = [kept("weight"), kept("scales"), biases.clone()];
            assert!(
                keep(packed, &updated, (spec, None)) == expected,
                "{name} kept in {} bits differs",
                spec.bits
            );
            count += 1;
            if files.get(&format!("settled/{name}/{}", spec.bits)).is_some() {
                let settled = part("settled", &format!("/{}", spec.bits));
                let ours = keep(packed, &updated, (spec, Some(&directions)));
                assert!(
                    ours[0] == settled && ours[0] != expected[0],
                    "{name} settled in {} bits differs",
                    spec.bits
                );
                settled_count += 1;
            }
        }
    }
    assert_eq!((count, settled_count), (3 * 3 * 21, 3 * 4));
}

fn keep(base: Packed<'_>, updated: &Rows, how: (QuantSpec, Option<&Directions>)) -> [Vec<u8>; 3] {
    let (spec, float, count) = (how.0, updated.float, updated.values.len());
    let lengths = [spec.weight_bytes(count), spec.scale_bytes(count, float), spec.bias_bytes(count, float)];
    let mut parts = lengths.map(|length| vec![0; length]);
    let [weight, scales, biases] = &mut parts;
    let dither = Dither::of("model.layers.0.self_attn.q_proj.weight", 5);
    base.keep(updated, dither, how, PackedMut { weight, scales, biases }).unwrap();
    parts
}
