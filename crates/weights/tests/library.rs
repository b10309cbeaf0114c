//! Models made by another program, with options that the command line never passes on.
//! Knows nothing of the command line.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and writes scratch files"
)]

use std::path::Path;

use weights::kernels::{Cpu, Mode, QuantSpec};
use weights::rewrite::{Job, Override, Quantize};
use weights::{Error, Output};

fn quantize(options: Quantize) -> Result<(), Error> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models/llama-float16");
    let folder = tempfile::tempdir().unwrap();
    let output = Output::new(folder.path().to_owned());
    Job::quantize(model, options).run(&output, &Cpu::default(), &|_, _| Ok(()))
}

#[test]
fn what_mlx_does_not_have_is_refused_for_the_model_and_for_a_layer() {
    let right = QuantSpec { mode: Mode::Affine, bits: 8, group_size: 32 };
    quantize(right.into()).unwrap();
    for (mode, bits, group_size) in [
        (Mode::Affine, 7, 32),
        (Mode::Affine, 0, 32),
        (Mode::Affine, 8, 16),
        (Mode::Affine, 8, 0),
        (Mode::Mxfp4, 8, 32),
        (Mode::Nvfp4, 4, 32),
    ] {
        let refused = quantize(QuantSpec { mode, bits, group_size }.into()).unwrap_err();
        assert!(matches!(refused, Error::Options(_)), "{refused}");
        let own = Override {
            pattern: "*q_proj".to_owned(),
            bits: Some(bits),
            group_size: Some(group_size),
            keep: false,
        };
        if mode == Mode::Affine {
            let refused = quantize(Quantize { overrides: vec![own], ..right.into() }).unwrap_err();
            assert!(matches!(refused, Error::Options(_)), "{refused}");
        }
    }
}
