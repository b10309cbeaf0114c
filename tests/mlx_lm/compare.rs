//! How two model folders differ, tensor by tensor and key by key.

use std::path::Path;

use half::{bf16, f16};
use serde_json::Value;

use weights::tensor::{Element, TensorFiles};

/// How much a tensor may differ from mlx-lm's.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Tolerance {
    /// Not in a bit.
    Exact,
    /// By this factor of the value, because MLX sums up a norm in its own order.
    Relative(f32),
}

use Tolerance::Relative;

/// Describes how the tensors differ.
pub(crate) fn differing_tensors(ours: &Path, expected: &Path, tolerance: Tolerance) -> Vec<String> {
    let ours = TensorFiles::open_model(ours).unwrap();
    let expected = TensorFiles::open_model(expected).unwrap();
    let mut differences = Vec::new();
    for name in ours.tensors().keys().filter(|name| expected.get(name).is_none()) {
        differences.push(format!("{name}: mlx-lm has no such tensor"));
    }
    for (name, theirs) in expected.tensors() {
        let Some(tensor) = ours.get(name) else {
            differences.push(format!("{name}: only mlx-lm has it"));
            continue;
        };
        if (tensor.element, &tensor.shape) != (theirs.element, &theirs.shape) {
            let (ours, theirs) = ((tensor.element, &tensor.shape), (theirs.element, &theirs.shape));
            differences.push(format!(
                "{name}: ours is {} {:?}, mlx-lm's {} {:?}",
                ours.0, ours.1, theirs.0, theirs.1
            ));
            continue;
        }
        let (left, right) = (ours.read(name).unwrap(), expected.read(name).unwrap());
        differences.extend(differing_elements(name, tensor.element, (&left, &right), tolerance));
    }
    differences
}

/// Describes where two tensors of one type and shape first differ, and in how many elements.
fn differing_elements(
    name: &str,
    element: Element,
    (ours, theirs): (&[u8], &[u8]),
    tolerance: Tolerance,
) -> Option<String> {
    let size = element.bitsize() / 8;
    let pairs = ours.chunks(size).zip(theirs.chunks(size)).enumerate();
    let mut differing = pairs.filter(|(_, (left, right))| !agree(element, left, right, tolerance));
    let (index, (left, right)) = differing.next()?;
    let count = 1 + differing.count();
    let (left, right) = (show(element, left), show(element, right));
    Some(format!(
        "{name}: {count} of {} differ, first [{index}]: ours {left}, mlx-lm's {right}",
        ours.len() / size
    ))
}

fn agree(element: Element, ours: &[u8], theirs: &[u8], tolerance: Tolerance) -> bool {
    ours == theirs
        || match (tolerance, float(element, ours), float(element, theirs)) {
            (Relative(most), Some(ours), Some(theirs)) => (ours - theirs).abs() <= most * theirs.abs(),
            _ => false,
        }
}

fn float(element: Element, bytes: &[u8]) -> Option<f32> {
    match element {
        Element::F16 => Some(f16::from_le_bytes(bytes.try_into().unwrap()).to_f32()),
        Element::BF16 => Some(bf16::from_le_bytes(bytes.try_into().unwrap()).to_f32()),
        Element::F32 => Some(f32::from_le_bytes(bytes.try_into().unwrap())),
        _ => None,
    }
}

/// Formats an element as a number, if it is one, and as it is stored.
fn show(element: Element, bytes: &[u8]) -> String {
    let stored = bytes.iter().rev().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"));
    float(element, bytes).map_or(stored.clone(), |value| format!("{value:e} ({stored})"))
}

/// Describes how the keys of `config.json` differ.
pub(crate) fn differing_config(ours: &Path, expected: &Path) -> Vec<String> {
    let read = |folder: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap()
    };
    let (ours, expected) = (read(ours), read(expected));
    let (ours, expected) = (ours.as_object().unwrap(), expected.as_object().unwrap());
    let mut keys: Vec<_> = ours.keys().chain(expected.keys()).collect();
    keys.sort();
    keys.dedup();
    // mlx-lm removes this key; ours says where the model comes from.
    keys.retain(|key| *key != "_name_or_path");
    let show = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    let differing = keys.into_iter().filter(|key| ours.get(*key) != expected.get(*key));
    differing
        .map(|key| {
            format!("config.json: {key}: ours {}, mlx-lm's {}", show(ours.get(key)), show(expected.get(key)))
        })
        .collect()
}
