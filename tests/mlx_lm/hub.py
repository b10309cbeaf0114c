"""Brings the tensors of mlx-lm's models into the layout of the Hugging Face hub: what `sanitize` of `models/*.py` undoes.

Each function takes and returns a dict of tensors by name.
"""

import re

import mlx.core as mx


def chain(*steps):
    def run(tensors):
        for step in steps:
            tensors = step(tensors)
        return tensors

    return run


def each(change):
    """Returns a step that `change`, given a name and a tensor, makes of each: another name and tensor."""

    def run(tensors):
        return dict(change(name, value) for name, value in tensors.items())

    return run


def rename(*pairs):
    """Replaces the first part that is found in a name."""

    def change(name, value):
        for old, new in pairs:
            if old in name:
                return name.replace(old, new), value
        return name, value

    return each(change)


def prefix(*pairs):
    """Replaces the beginning of names."""

    def change(name, value):
        for old, new in pairs:
            if name.startswith(old):
                return new + name[len(old) :], value
        return name, value

    return each(change)


def add(*names, shape=(64, 64)):
    """Adds tensors that mlx-lm leaves out."""
    return lambda tensors: tensors | {name: mx.ones(shape, mx.float16) for name in names}


def conv(word="conv1d.weight"):
    """Channels of convolutions second, as PyTorch has them."""

    def change(name, value):
        is_conv = word in name and value.ndim == 3
        return name, mx.contiguous(value.moveaxis(2, 1)) if is_conv else value

    return each(change)


def transpose(pattern):
    def change(name, value):
        return name, mx.contiguous(value.swapaxes(-1, -2)) if re.search(pattern, name) else value

    return each(change)


def reshape(pattern, shape):
    def change(name, value):
        return name, value.reshape(shape) if re.search(pattern, name) else value

    return each(change)


def minus_one(*ends):
    def change(name, value):
        return name, value - 1 if name.endswith(ends) and value.ndim == 1 else value

    return each(change)


def one_by_one(stack=".switch_mlp.", experts=".experts.", names=("gate_proj", "up_proj", "down_proj"), to=None):
    """Experts as one tensor each."""
    to = dict(zip(names, to or names))

    def run(tensors):
        found = {}
        for name, value in tensors.items():
            owner, there, rest = name.partition(stack)
            module, _, part = rest.partition(".")
            if there and module in to:
                for number in range(len(value)):
                    found[f"{owner}{experts}{number}.{to[module]}.{part}"] = value[number]
            else:
                found[name] = value
        return found

    return run


MIXTRAL = {"to": ("w1", "w3", "w2")}


def together(gate, up, to, axis=1):
    """Joins the two projections."""

    def run(tensors):
        for name in [name for name in tensors if name.endswith(gate)]:
            owner = name.removesuffix(gate)
            parts = tensors.pop(name), tensors.pop(owner + up)
            tensors[owner + to] = mx.concatenate(parts, axis)
        return tensors

    return run


def in_one_tensor(stack=".switch_mlp.", experts=".experts."):
    """All experts of a layer in one tensor, without `.weight`."""
    return chain(
        together(f"{stack}gate_proj.weight", f"{stack}up_proj.weight", f"{experts}gate_up_proj"),
        rename((f"{stack}down_proj.weight", f"{experts}down_proj")),
    )


def latent(tensors):
    """`kv_b_proj` of multi-head latent attention."""
    for name in [name for name in tensors if name.endswith(".embed_q.weight")]:
        owner = name.removesuffix("embed_q.weight")
        keys, values = tensors.pop(name), tensors.pop(owner + "unembed_out.weight")
        whole = mx.concatenate([keys.swapaxes(-1, -2), values], axis=1)
        tensors[owner + "kv_b_proj.weight"] = whole.reshape(-1, whole.shape[-1])
    return tensors


def by_groups(tensors):
    """Hunyuan's fused queries, keys and values: four heads in two groups."""
    for name in [name for name in tensors if name.endswith(".q_proj.weight")]:
        owner = name.removesuffix("q_proj.weight")
        parts = [tensors.pop(f"{owner}{part}_proj.weight") for part in "qkv"]
        columns = parts[0].shape[-1]
        grouped = [part.reshape(2, -1, columns) for part in parts]
        tensors[owner + "qkv_proj.weight"] = mx.concatenate(grouped, 1).reshape(-1, columns)
    return tensors


def dbrx(tensors):
    found = {}
    experts = {}
    for name, value in tensors.items():
        expert = re.fullmatch(r"(.*\.experts)\.(\d+)\.(w1|v1|w2)\.weight", name)
        if expert:
            owner, number, matrix = expert.groups()
            rows = value.T if matrix == "w2" else value
            experts.setdefault(f"{owner}.mlp.{matrix}", {})[int(number)] = rows
        else:
            found[name] = value
    return found | {name: mx.concatenate([parts[n] for n in sorted(parts)]) for name, parts in experts.items()}


def kimi(tensors):
    moe = {name.split(".mlp.")[0] for name in tensors if ".mlp.switch_mlp." in name}
    tensors = one_by_one(".mlp.switch_mlp.", ".block_sparse_moe.experts.", **MIXTRAL)(tensors)

    def change(name, value):
        owner, there, rest = name.partition(".mlp.")
        if there and owner in moe:
            gate = "gate." if rest == "e_score_correction_bias" else ""
            return f"{owner}.block_sparse_moe.{gate}{rest}", value
        for part in "qkv":
            if f".{part}_conv.conv." in name:
                return name.replace("_conv.conv.", "_conv1d."), mx.contiguous(value.moveaxis(2, 1))
        return name, value.reshape(-1, 1) if name.endswith("dt_bias") else value

    return each(change)(tensors)


QWEN_NORMS = minus_one(
    ".input_layernorm.weight", ".post_attention_layernorm.weight", "model.norm.weight", ".q_norm.weight", ".k_norm.weight"
)
BELOW_MODEL = prefix(("language_model.model.", "model.language_model."), ("language_model.lm_head", "lm_head"))
QWEN_VISION = add("model.visual.blocks.0.attn.qkv.weight", "model.visual.patch_embed.proj.bias")
VISION = add("vision_tower.blocks.0.attn.qkv.weight", "multi_modal_projector.linear.weight")
BAILING_GATE = rename((".mlp.gate.gate_proj.", ".mlp.gate."))
GRANITE = chain(
    together(
        ".block_sparse_moe.switch_mlp.gate_proj.weight",
        ".block_sparse_moe.switch_mlp.up_proj.weight",
        ".block_sparse_moe.input_linear.weight",
    ),
    rename((".block_sparse_moe.switch_mlp.down_proj.", ".block_sparse_moe.output_linear.")),
)
STEP = rename(
    (".mlp.switch_mlp.", ".moe."),
    (".mlp.gate.gate.", ".moe.gate."),
    (".mlp.gate.router_bias", ".moe.router_bias"),
    (".mlp.share_expert.", ".share_expert."),
)
DENSE_GRANITE = chain(
    together(".mlp.gate_proj.weight", ".mlp.up_proj.weight", ".shared_mlp.input_linear.weight", 0),
    rename((".mlp.down_proj.", ".shared_mlp.output_linear.")),
)
EXTRA_LAYER = add("model.layers.4.eh_proj.weight")

LAYOUTS = {
    "Klear": one_by_one(".experts."),
    "afmoe": one_by_one(".experts."),
    "apertus": reshape(r"alpha_[pn]$", (1,)),
    "bailing_hybrid": chain(one_by_one(), BAILING_GATE, latent, EXTRA_LAYER),
    "bailing_moe": chain(one_by_one(), BAILING_GATE),
    "bailing_moe_linear": chain(one_by_one(), BAILING_GATE),
    "bailing_moe_v3": chain(one_by_one(), latent, conv("_conv1d.weight"), EXTRA_LAYER),
    "dbrx": dbrx,
    "deepseek": one_by_one(),
    "deepseek_v2": one_by_one(),
    "deepseek_v3": chain(one_by_one(), latent),
    "deepseek_v32": chain(one_by_one(), latent, EXTRA_LAYER),
    "dots1": one_by_one(".experts."),
    "ernie4_5_moe": chain(one_by_one(), add("model.mtp_block.0.linear.weight")),
    "exaone_moe": chain(
        one_by_one(),
        rename((".mlp.gate.e_score_correction_bias", ".mlp.e_score_correction_bias")),
        add("mtp.layers.0.linear.weight"),
    ),
    "falcon_h1": conv(),
    "gemma3": VISION,
    "gemma3n": add("model.vision_tower.a.weight", "model.audio_tower.b.weight", "model.embed_vision.c.weight"),
    "gemma4": chain(
        prefix(("language_model.model.", "model.language_model.")),
        in_one_tensor(".experts.switch_glu."),
        add("model.vision_tower.a.weight", "model.embed_audio.b.weight"),
    ),
    "glm4_moe": chain(one_by_one(), EXTRA_LAYER),
    "glm4_moe_lite": chain(one_by_one(), latent, EXTRA_LAYER),
    "glm_moe_dsa": chain(one_by_one(), latent, EXTRA_LAYER),
    "gpt2": chain(
        transpose(r"\.(c_attn|c_proj|c_fc)\.weight$"),
        prefix(("model.", "")),
        add("h.0.attn.bias", shape=(1, 1, 8, 8)),
    ),
    "gpt_neox": chain(
        prefix(("model.h.", "gpt_neox.layers."), ("model.embed_out", "embed_out"), ("model.", "gpt_neox.")),
        add("gpt_neox.layers.0.attention.bias", shape=(1, 1, 8, 8)),
    ),
    "gptj": chain(prefix(("model.", "transformer.")), add("transformer.h.0.attn.masked_bias", shape=())),
    "granitemoe": GRANITE,
    "granitemoehybrid": chain(GRANITE, conv()),
    "granitemoehybrid+dense": chain(DENSE_GRANITE, conv()),
    "internlm2": add("model.layers.0.attention.rope.inv_freq", shape=(16,)),
    "jamba": chain(one_by_one(), conv()),
    "kimi_k25": chain(one_by_one(), latent, add("vision_tower.a.weight", "mm_projector.b.weight")),
    "kimi_linear": chain(latent, kimi, add("model.mtp.layers.0.linear.weight")),
    "kimi_vl": chain(one_by_one(), VISION),
    "laguna": chain(
        one_by_one(),
        rename(
            (".mlp.gate.proj.", ".mlp.gate."),
            (".mlp.gate.e_score_correction_bias", ".mlp.experts.e_score_correction_bias"),
        ),
    ),
    "lfm2": conv("conv.weight"),
    "lfm2-vl": VISION,
    "lfm2_moe": chain(
        one_by_one(**MIXTRAL),
        rename((".gate_proj.weight", ".w1.weight"), (".up_proj.weight", ".w3.weight"), (".down_proj.weight", ".w2.weight")),
        conv("conv.weight"),
    ),
    "llama": add("model.layers.0.self_attn.rotary_emb.inv_freq", shape=(16,)),
    "llama4": chain(
        in_one_tensor(".experts."), transpose(r"\.experts\.(gate_up|down)_proj$"), add("vision_model.a.weight")
    ),
    "longcat_flash": chain(one_by_one(), latent, add("model.mtp.a.weight")),
    "longcat_flash_ngram": chain(
        one_by_one(), latent, prefix(("model.ngram_embeddings.word_embeddings.", "model.embed_tokens."))
    ),
    "mamba": conv(),
    "mamba2": conv(),
    "mellum": one_by_one(),
    "mimo": add("model.mtp_layers.0.a.weight"),
    "mimo_v2_flash": chain(one_by_one(), add("model.mtp.layers.0.a.weight")),
    "minicpm": lambda tensors: {name: value for name, value in tensors.items() if name != "lm_head.weight"},
    "minimax": one_by_one(**MIXTRAL),
    "minimax_m3_vl": chain(
        together(".shared_experts.gate_proj.weight", ".shared_experts.up_proj.weight", ".shared_experts.gate_up_proj.weight", 0),
        one_by_one(**MIXTRAL),
        add("vision_tower.a.weight", "patch_merge_mlp.b.weight"),
    ),
    "mistral3": chain(prefix(("language_model.model.", "model.language_model.")), VISION),
    "mistral4": chain(in_one_tensor(), latent),
    "mixtral": one_by_one(**MIXTRAL),
    "muse_glimmer": chain(prefix(("model.", "model.language_model.")), add("vision_adapter.a.weight")),
    "nemotron_h": chain(
        one_by_one(".mixer.switch_mlp.", ".mixer.experts.", ("fc1", "fc2"), ("up_proj", "down_proj")),
        conv(),
        add("mtp.layers.0.a.weight"),
    ),
    "olmo_hybrid": conv(),
    "olmoe": one_by_one(),
    "phimoe": one_by_one(**MIXTRAL),
    "phixtral": one_by_one(".moe.switch_mlp.", ".moe.mlp.", ("fc1", "fc2")),
    "pixtral": VISION,
    "plamo2": conv(),
    "qwen2_moe": one_by_one(),
    "qwen2_vl": chain(prefix(("language_model.", "")), add("visual.blocks.0.attn.qkv.weight")),
    "qwen3_5": chain(QWEN_NORMS, BELOW_MODEL, conv(), QWEN_VISION, add("mtp.layers.0.a.weight")),
    "qwen3_5_moe": chain(QWEN_NORMS, BELOW_MODEL, conv(), in_one_tensor(), QWEN_VISION),
    "qwen3_moe": one_by_one(),
    "qwen3_next": chain(QWEN_NORMS, one_by_one(), conv(), add("mtp.layers.0.a.weight")),
    "qwen3_vl": chain(BELOW_MODEL, QWEN_VISION),
    "qwen3_vl_moe": chain(
        BELOW_MODEL, in_one_tensor(), transpose(r"\.experts\.(gate_up|down)_proj$"), QWEN_VISION
    ),
    "recurrent_gemma": conv("conv_1d.weight"),
    "rwkv7": reshape(r"k_k|k_a|g_norm", (-1,)),
    "solar_open": chain(one_by_one(), EXTRA_LAYER),
    "spark2_5": prefix(("model.embedding.", "model.embed_tokens.")),
    "step3p5": chain(each(lambda name, value: (name, value - 1 if "norm" in name else value)), STEP),
    "talkie": add("model.cos", "model.sin", shape=(8, 8)),
}
