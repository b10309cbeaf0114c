//! Files that are not what their name says, told by their first bytes: pointers, web pages, archives, other
//! formats of weights.
//! Knows nothing of what the file should be.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How many bytes are looked at.
const LOOK: usize = 512;

/// What a file of this kind begins with, and what it is.
const KINDS: [(&[u8], &str); 12] = [
    (
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer, not the file itself; `git lfs pull` in the repository that it is from fetches the file",
    ),
    (b"# xet version", "a Xet pointer, not the file itself; fetch the file with `git xet` or from the hub"),
    (
        b"GGUF",
        "a GGUF file, as llama.cpp uses it; MLX and this tool read safetensors: take the model in that format",
    ),
    (b"\x1f\x8b", "compressed with gzip; unpack it with `gunzip`"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it with `unzstd`"),
    (b"\xfd7zXZ\0", "compressed with xz; unpack it with `unxz`"),
    (b"BZh", "compressed with bzip2; unpack it with `bunzip2`"),
    (b"PK\x03\x04", PICKLE),
    (b"\x80\x02", PICKLE),
    (b"\x80\x03", PICKLE),
    (b"\x80\x04", PICKLE),
    (b"\x80\x05", PICKLE),
];

const PICKLE: &str = "a pickle, as `torch.save` writes it; reading one can run code, so it is not read: convert it to \
     safetensors, for example with `mlx_lm.convert`";

/// Returns what a file is, if it is of a kind that is often found in the place of weights or of JSON. It
/// follows "it is".
///
/// # Errors
/// Fails if the file cannot be read.
pub(crate) fn describe_foreign(file: &File) -> io::Result<Option<&'static str>> {
    let mut bytes = [0; LOOK];
    let mut length = 0;
    while length < LOOK {
        match file.read_at(bytes.get_mut(length..).unwrap_or_default(), length as u64)? {
            0 => break,
            more => length += more,
        }
    }
    Ok(describe(bytes.get(..length).unwrap_or_default()))
}

fn describe(bytes: &[u8]) -> Option<&'static str> {
    if bytes.is_empty() {
        return Some("empty; the download or the copy was cut off, so fetch it again");
    }
    // The length of a header: a file of safetensors may begin with any of the short beginnings below.
    let is_header = bytes.get(8) == Some(&b'{') && bytes.get(5..8) == Some(&[0; 3]);
    if is_header {
        return None;
    }
    if let Some((_, what)) = KINDS.iter().find(|(start, _)| bytes.starts_with(start)) {
        return Some(what);
    }
    let text: String = bytes.trim_ascii_start().iter().take(16).map(|byte| char::from(*byte)).collect();
    let text = text.to_ascii_lowercase();
    let is_page = ["<!doctype", "<html", "<?xml", "<head", "<body"].iter().any(|tag| text.starts_with(tag));
    is_page.then_some(
        "a web page, not the file itself: the address of the download was wrong, or it needed a login",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_is_often_taken_for_weights() {
        let kinds: [(&[u8], &str); 8] = [
            (b"", "empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "git lfs pull"),
            (b"GGUF\x03\0\0\0", "GGUF"),
            (b"\x1f\x8b\x08\0", "gzip"),
            (b"PK\x03\x04\0\0archive/data.pkl", "pickle"),
            (b"\x80\x02}q\0", "pickle"),
            (b"\n <!DOCTYPE html><html>", "web page"),
            (b"<html><head>", "web page"),
        ];
        for (bytes, what) in kinds {
            assert!(describe(bytes).unwrap().contains(what), "{bytes:?}");
        }
    }

    #[test]
    fn takes_nothing_for_another_that_may_be_right() {
        for bytes in [
            &b"{\"model_type\": \"llama\"}"[..],
            b"\x80\x02\0\0\0\0\0\0{\"a\":",
            b"\x1f\x8b\0\0\0\0\0\0{\"",
            b"\x01",
        ] {
            assert_eq!(describe(bytes), None, "{bytes:?}");
        }
    }
}
