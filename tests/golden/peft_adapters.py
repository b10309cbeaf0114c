"""Adapters of PEFT, and what PEFT's own `merge_and_unload` makes of them.

    pip install torch peft==0.21.2 transformers
    python -P tests/golden/peft_adapters.py              # or with another folder, to compare

Writes beside this script, or into FOLDER, the folder `peft`:

    MODEL/               a small random model as transformers saves it
    CASE/adapter/        an adapter as PEFT saves it, its factors random
    CASE/merged.safetensors
                         the tensors of the merged model that differ from those of MODEL, by transformers' names
    cases.json           for each case its model

A second run with the same versions gives the same bytes.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 64,
    "max_position_embeddings": 64,
}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
    "llama-tied": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, tie_word_embeddings=True)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=64, n_positions=64)),
}
ATTENTION = ["q_proj", "v_proj"]
CASES = {
    "lora": ("llama", {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION}),
    "rslora": ("llama", {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION, "use_rslora": True}),
    "dora": ("llama", {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "use_dora": True}),
    "patterns": (
        "llama",
        {
            "r": 2,
            "lora_alpha": 8,
            "target_modules": "all-linear",
            "rank_pattern": {"down_proj": 4},
            "alpha_pattern": {"layers.1.self_attn.q_proj": 32},
        },
    ),
    "embedding": ("llama", {"r": 4, "lora_alpha": 8, "target_modules": ["embed_tokens", "q_proj"]}),
    "saved": ("llama", {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION, "modules_to_save": ["lm_head"]}),
    "both-copies": (
        "llama-tied",
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ATTENTION,
            "modules_to_save": ["embed_tokens", "lm_head"],
        },
    ),
    "conv1d": ("gpt2", {"r": 4, "lora_alpha": 8, "target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
}


def write_model(folder, name):
    torch.manual_seed(1)
    model = MODELS[name]()
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {}, "merges": []}}\n')


def write_case(folder, models, case):
    name, options = CASES[case]
    torch.manual_seed(2)
    model = MODELS[name]()
    model.load_state_dict(load_file(models / name / "model.safetensors"), strict=False)
    model.tie_weights()
    peft = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
    for parameter in peft.parameters():
        if parameter.requires_grad:
            # Not over what is there: a magnitude of DoRA is near the length of its row.
            parameter.data += 0.05 * torch.randn_like(parameter)
    peft.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    # PEFT keeps a set of modules, which has another order in each process.
    path = folder / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    merged = peft.merge_and_unload().state_dict()
    base = load_file(models / name / "model.safetensors")
    changed = {
        key: value.contiguous().clone()
        for key, value in merged.items()
        if key not in base or not torch.equal(value, base[key])
    }
    if name == "gpt2":
        changed.pop("lm_head.weight", None)
    save_file(changed, folder / "merged.safetensors")


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent) / "peft"
    shutil.rmtree(root, ignore_errors=True)
    for name in MODELS:
        write_model(root / name, name)
    for case in CASES:
        write_case(root / case, root, case)
    cases = {case: name for case, (name, _) in CASES.items()}
    (root / "cases.json").write_text(json.dumps(cases, indent=2) + "\n")


if __name__ == "__main__":
    main()
