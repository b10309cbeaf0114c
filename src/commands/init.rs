//! `pipeline init`: writes a first pipeline.yaml.
//! Knows nothing of the models that it names.

use std::fs::File;
use std::io::{ErrorKind, Write};

use clap::Args;

use crate::outcome::Outcome;
use crate::terminal::{print, warn};
use artifact::{AtPath, in_one_line};
use engine::project::ProjectPath;

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The base model's folder, as mlx-lm writes it
    #[arg(long, default_value = "models/base", value_name = "DIR")]
    model: String,
    /// The LoRA adapter's folder, as mlx-lm writes it
    #[arg(long, default_value = "adapters", value_name = "DIR")]
    adapter_path: String,
}

pub(crate) fn run(args: &InitArgs, project: &ProjectPath) -> anyhow::Result<Outcome> {
    let path = project.path();
    let created = File::create_new(&path);
    if created.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists) {
        return Err(engine::Error::Usage(format!(
            "{} is there already; it is left as it is",
            path.display()
        ))
        .into());
    }
    let text = template(&args.model, &args.adapter_path);
    created.and_then(|mut file| file.write_all(text.as_bytes())).at("write", &path)?;
    if let Err(error) = project.make_folders() {
        warn(&[in_one_line(&error)]);
    }
    print(&format!("wrote {}; next: `pipeline build`\n", path.display()))?;
    Ok(Outcome::Success)
}

fn template(model: &str, adapter: &str) -> String {
    let (model, adapter) = (serde_json::json!(model), serde_json::json!(adapter));
    format!(
        "version: 1\nnodes:\n  base: {{stage: base, source: {model}}}\n  adapter: {{stage: adapter, source: {adapter}}}\n  \
         fused-f16: {{stage: fuse, model: base, adapter: adapter, dtype: float16}}\n  \
         8bit: {{stage: quantize, model: fused-f16, bits: 8, group_size: 64}}\n  \
         6bit: {{stage: quantize, model: fused-f16, bits: 6, group_size: 64}}\n  \
         # For a base that is quantized to 4 bits; it keeps the training at the base's size.\n  \
         # 4bit: {{stage: quantize, model: fused-f16, bits: 4, group_size: 64, rounding: keep}}\n  \
         # benchmark:\n  \
         #   stage: benchmark\n  \
         #   suite: suite.yaml\n  \
         #   configs: {{base: base, fused-f16: fused-f16, 8bit: 8bit, 6bit: 6bit}}\n  \
         #   reference: fused-f16\n  \
         #   gates:\n  \
         #     8bit: {{survival: \">= 0.9\", kl: \"<= 0.01\"}}\n  \
         #     6bit: {{survival: \">= 0.9\", kl: \"<= 0.05\"}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::graph::Graph;
    use engine::manifest::Manifest;

    #[test]
    fn writes_what_the_tool_reads() {
        let manifest = Manifest::parse(&template("my: model", "ad")).unwrap();
        assert_eq!(manifest.nodes[0].source.as_ref().unwrap().path(), Some("my: model"));
        assert_eq!(Graph::check(manifest).unwrap().len(), 5);
    }

    #[test]
    fn what_is_commented_out_is_valid_too() {
        let all = template("m", "a").replace("  # For a base", "  #: For a base").replace("\n  # ", "\n  ");
        let manifest = Manifest::parse(&all).unwrap();
        assert_eq!(Graph::check(manifest).unwrap().len(), 7);
    }
}
