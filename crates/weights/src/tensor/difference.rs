//! Finds the first tensor in which two safetensors files differ, and says how.
//! Knows nothing of why they should be the same. Reads both files in blocks, never a whole tensor.

use std::collections::BTreeSet;
use std::path::Path;

use super::{TensorFiles, TensorRef};
use crate::error::Result;

/// How many bytes of each file are in memory at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// Compares the safetensors file `b` with the older file `a`. Returns a message about the first tensor, by
/// name, that differs. Returns `None` if all tensors are the same; the headers of the files may still differ.
///
/// # Errors
/// Fails if a file cannot be read or is not a valid safetensors file.
pub fn first_difference(a: &Path, b: &Path) -> Result<Option<String>> {
    let (before, now) = (TensorFiles::open(a)?, TensorFiles::open(b)?);
    let names: BTreeSet<_> = before.tensors().keys().chain(now.tensors().keys()).collect();
    for name in names {
        let difference = match (before.get(name), now.get(name)) {
            (Some(old), Some(new)) => match differing_form(old, new) {
                Some(form) => Some(form),
                None => first_byte(name, &before, &now, old)?.map(|byte| place(byte, old)),
            },
            (Some(_), None) => Some("is missing".to_owned()),
            (None, _) => Some("is new".to_owned()),
        };
        if let Some(difference) = difference {
            return Ok(Some(format!("tensor `{name}` {difference}")));
        }
    }
    Ok(None)
}

fn differing_form(old: &TensorRef, new: &TensorRef) -> Option<String> {
    if old.element != new.element {
        return Some(format!("is {:?}, not {:?}", new.element, old.element));
    }
    (old.shape != new.shape).then(|| format!("has the shape {:?}, not {:?}", new.shape, old.shape))
}

/// Returns the offset of the first byte in which two tensors of the same type and shape differ.
fn first_byte(
    name: &str,
    before: &TensorFiles,
    now: &TensorFiles,
    form: &TensorRef,
) -> Result<Option<usize>> {
    let (mut old, mut new) = (vec![0; BLOCK_BYTES.min(form.length)], vec![0; BLOCK_BYTES.min(form.length)]);
    let mut from = 0;
    while from < form.length {
        let length = BLOCK_BYTES.min(form.length - from);
        old.truncate(length);
        new.truncate(length);
        before.read_part(name, from, &mut old)?;
        now.read_part(name, from, &mut new)?;
        if let Some(byte) = old.iter().zip(&new).position(|(old, new)| old != new) {
            return Ok(Some(from + byte));
        }
        from += length;
    }
    Ok(None)
}

fn place(byte: usize, form: &TensorRef) -> String {
    let element = byte * 8 / form.element.bitsize().max(1);
    format!("differs from element {element} on (byte {byte})")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    use super::*;

    fn difference(
        a: &[(&str, Dtype, &[usize], &[u8])],
        b: &[(&str, Dtype, &[usize], &[u8])],
    ) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, tensors: &[(&str, Dtype, &[usize], &[u8])]| {
            let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
                (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap())
            });
            let path = folder.path().join(name);
            fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
            path
        };
        first_difference(&write("a", a), &write("b", b)).unwrap()
    }

    #[test]
    fn names_the_first_tensor_and_how_it_differs() {
        let one = ("b", Dtype::F16, &[2, 1][..], &[1, 2, 3, 4][..]);
        let said = |other| difference(&[one], &[other]).unwrap_or_default();
        assert_eq!(said(one), "");
        assert_eq!(said(("b", Dtype::BF16, &[2, 1], &[1, 2, 3, 4])), "tensor `b` is BF16, not F16");
        assert_eq!(
            said(("b", Dtype::F16, &[1, 2], &[1, 2, 3, 4])),
            "tensor `b` has the shape [1, 2], not [2, 1]"
        );
        assert_eq!(
            said(("b", Dtype::F16, &[2, 1], &[1, 2, 3, 5])),
            "tensor `b` differs from element 1 on (byte 3)"
        );
        assert_eq!(said(("c", Dtype::F16, &[2, 1], &[1, 2, 3, 4])), "tensor `b` is missing");
        assert_eq!(said(("a", Dtype::F16, &[2, 1], &[1, 2, 3, 4])), "tensor `a` is new");
    }

    #[test]
    fn looks_beyond_the_first_block() {
        let (old, mut new) = (vec![0; 2 * BLOCK_BYTES + 3], vec![0; 2 * BLOCK_BYTES + 3]);
        let last = new.len() - 1;
        new[last] = 1;
        let shape = [new.len()];
        let said = difference(&[("a", Dtype::U8, &shape, &old)], &[("a", Dtype::U8, &shape, &new)]);
        assert_eq!(said, Some(format!("tensor `a` differs from element {last} on (byte {last})")));
    }
}
