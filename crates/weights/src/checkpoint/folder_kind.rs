//! Whether a folder is a model at all, told by the names of its files and their first bytes, before anything
//! is computed.
//! Knows nothing of what is in a model.

use std::fs::{self, File};
use std::path::Path;

use super::CONFIG_FILE;
use crate::error::{Result, fail, require};
use crate::tensor::describe_foreign;
use artifact::AtPath;

/// The configuration of an adapter, in both formats.
const ADAPTER_CONFIG: &str = "adapter_config.json";

/// What models in other formats consist of, and what to do with them.
const OTHERS: [(&str, &str); 6] = [
    (".gguf", "a GGUF file, as llama.cpp uses it; take the model in the safetensors format"),
    (".bin", "a pickle, as `torch.save` writes it; convert it with `mlx_lm.convert`"),
    (".pt", "a pickle, as `torch.save` writes it; convert it with `mlx_lm.convert`"),
    (".pth", "a pickle, as `torch.save` writes it; convert it with `mlx_lm.convert`"),
    (".npz", "NumPy arrays, as old versions of MLX wrote them; convert the original model again"),
    (".onnx", "an ONNX graph; take the model in the safetensors format"),
];

/// Checks that a folder may be a model: it has a configuration and weights, and no file is a pointer, a web
/// page or another format in the place of one.
///
/// # Errors
/// Fails if it is an adapter or holds weights in another format, or if a file is not what its name says. The
/// message says what it is and what to do.
pub fn check_model_folder(folder: &Path) -> Result<()> {
    let names = names(folder)?;
    let has = |name: &str| names.iter().any(|found| found == name);
    let safetensors = names.iter().any(|name| name.ends_with(".safetensors"));
    require!(
        has(CONFIG_FILE) || !has(ADAPTER_CONFIG),
        Checkpoint,
        "{} is a LoRA adapter, not a model; it belongs in a node with `stage: adapter`",
        folder.display()
    );
    let other = OTHERS.iter().find(|(ending, _)| names.iter().any(|name| name.ends_with(ending)));
    if let (false, Some((ending, what))) = (safetensors, other) {
        fail!(
            Checkpoint,
            "{} holds no safetensors, but a file that ends with {ending}: {what}",
            folder.display()
        );
    }
    check_files(folder, &names)
}

/// Checks that a folder may be an adapter, in the same way.
///
/// # Errors
/// Fails if it is a whole model, or if a file is not what its name says.
pub fn check_adapter_folder(folder: &Path) -> Result<()> {
    let names = names(folder)?;
    let has = |name: &str| names.iter().any(|found| found == name);
    require!(
        has(ADAPTER_CONFIG) || !has(CONFIG_FILE),
        Adapter,
        "{} is a whole model, not an adapter; it belongs in a node with `stage: base`",
        folder.display()
    );
    check_files(folder, &names)
}

/// Returns what a file is, if it is of a kind that is often taken for a model, such as GGUF. It follows "it is".
///
/// # Errors
/// Fails if the file cannot be read.
pub fn describe_file(path: &Path) -> Result<Option<&'static str>> {
    Ok(File::open(path).and_then(|file| describe_foreign(&file)).at("read", path)?)
}

fn check_files(folder: &Path, names: &[String]) -> Result<()> {
    let read = names.iter().filter(|name| name.ends_with(".safetensors") || name.ends_with(".json"));
    for name in read {
        let path = folder.join(name);
        let file = File::open(&path).at("read", &path)?;
        if let Some(what) = describe_foreign(&file).at("read", &path)? {
            fail!(Format, "{} is {what}", path.display());
        }
    }
    Ok(())
}

/// Returns the names of the files in a folder, sorted, without hidden ones.
fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).at("read", folder)? {
        let entry = entry.at("read", folder)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && entry.path().is_file() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Check = fn(&Path) -> Result<()>;

    fn refusal(files: &[(&str, &str)], check: Check) -> String {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        check(folder.path()).map_or_else(|error| error.to_string(), |()| "fine".to_owned())
    }

    #[test]
    fn says_what_the_folder_is() {
        let config = ("config.json", "{}");
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n";
        let model = |files: &[(&str, &str)]| refusal(files, check_model_folder);
        assert_eq!(model(&[config]), "fine", "what is missing is said later");
        assert!(model(&[config, ("model.safetensors", pointer)]).contains("git lfs pull"));
        assert!(
            model(&[config, ("tokenizer.json", pointer)]).contains("tokenizer.json is a Git LFS pointer")
        );
        assert!(model(&[config, ("model.safetensors", "")]).contains("is empty"));
        assert!(model(&[config, ("model-q8.gguf", "GGUF")]).contains("a GGUF file"));
        assert!(model(&[config, ("pytorch_model.bin", "PK")]).contains("mlx_lm.convert"));
        assert!(model(&[("adapter_config.json", "{}")]).contains("`stage: adapter`"));
        let adapter = |files: &[(&str, &str)]| refusal(files, check_adapter_folder);
        assert!(adapter(&[config, ("model.safetensors", "x")]).contains("`stage: base`"));
        assert!(
            adapter(&[("adapter_config.json", "{}"), ("adapters.safetensors", "<html>")])
                .contains("a web page")
        );
    }
}
