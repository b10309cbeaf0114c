//! The printed graph, and the verbs that need no model: `init`, `completions`.

use crate::space::Space;

#[test]
fn dot() {
    insta::assert_snapshot!(Space::pico().run(&["graph"]).exits(0).stdout, @r#"
    digraph pipeline {
      rankdir=LR;
      node [shape=box, style=rounded];
      "base" [label="base\nbase"];
      "adapter" [label="adapter\nadapter"];
      "fused" [label="fused\nfuse"];
      "q8" [label="q8\n8 bits, group 64"];
      "q4" [label="q4\n4 bits, group 64"];
      "base" -> "fused";
      "adapter" -> "fused";
      "fused" -> "q8";
      "fused" -> "q4";
    }
    "#);
}

#[test]
fn mermaid() {
    insta::assert_snapshot!(Space::pico().run(&["graph", "--format", "mermaid"]).exits(0).stdout, @r#"
    graph LR
      n0["base<br/><small>base</small>"]
      n1["adapter<br/><small>adapter</small>"]
      n2["fused<br/><small>fuse</small>"]
      n3["q8<br/><small>8 bits, group 64</small>"]
      n4["q4<br/><small>4 bits, group 64</small>"]
      n0 --> n2
      n1 --> n2
      n2 --> n3
      n2 --> n4
    "#);
}

#[test]
fn json() {
    let space = Space::pico();
    let run = space.run(&["graph", "--json"]).exits(0);
    assert_eq!(run.stdout, space.run(&["graph", "--format", "json"]).exits(0).stdout);
    insta::assert_snapshot!(serde_json::to_string_pretty(&run.json()[0]["nodes"][2]).unwrap(), @r#"
    {
      "name": "fused",
      "stage": "fuse",
      "inputs": {
        "model": "base",
        "adapter": "adapter"
      },
      "source": null
    }
    "#);
}

#[test]
fn init_writes_what_graph_accepts_and_never_overwrites() {
    let space = Space::empty();
    let run = space.run(&["init", "--model", "my model", "--adapter-path", "lora"]).exits(0);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 0
    stdout:
    wrote pipeline.yaml; next: `pipeline build`
    ");
    space.write("my model/config.json", "{}").write("lora/adapter_config.json", "{}");
    let graph = space.run(&["graph"]).exits(0);
    assert!(graph.stdout.contains("\"fused-f16\" -> \"6bit\""), "{}", graph.transcript());

    let before = space.read("pipeline.yaml");
    let run = space.run(&["init"]).exits(2);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 2
    stderr:
    error: pipeline.yaml is there already; it is left as it is
    ");
    assert_eq!(space.read("pipeline.yaml"), before);
}

#[test]
fn completions_name_the_verbs() {
    let space = Space::empty();
    for shell in ["bash", "zsh", "fish"] {
        let run = space.run(&["completions", shell]).exits(0);
        assert!(run.stdout.contains("verify"), "{}", run.transcript());
    }
}

#[test]
fn a_label_says_how_it_is_quantized() {
    let space = Space::pico();
    let label = |node: &str| {
        space.write(
            "pipeline.yaml",
            format!("version: 1\nnodes:\n  m: {{stage: base, source: model}}\n  q: {node}\n"),
        );
        let dot = space.run(&["graph", "--format", "dot"]).exits(0).stdout;
        dot.split("label=\"q\\n").nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    assert_eq!(label("{stage: quantize, model: m, bits: 6}"), "6 bits, group 64");
    assert_eq!(label("{stage: quantize, model: m, mode: nvfp4}"), "nvfp4");
    let overrides = "overrides: [{pattern: '*', keep: true}]";
    let mixed = format!("{{stage: quantize, model: m, recipe: mixed_3_6, {overrides}}}");
    assert_eq!(label(&mixed), "mixed_3_6, group 64, overrides");
}
