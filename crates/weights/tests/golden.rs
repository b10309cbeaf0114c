//! The weight kernels compared with MLX, bit for bit, by golden files.
//! Knows nothing of MLX itself; `crates/models/tests/backend.rs` runs it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod samples;

use samples::{FLOATS, affine, bits, dequantize, expected, golden, lora, modes, quantize, rows};

use weights::kernels::{Backend, Cpu};

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
