"""Writes a small random model of each type of the installed mlx-lm, and what mlx-lm itself makes of it: what
`types.rs` compares with.

    .mlx-lm/bin/python tests/mlx_lm/model_types.py FOLDER

Into FOLDER go

    models/TYPE     a model as mlx-lm saves it, its tensors in two types, cast as config.json says
    hub/TYPE        the same in the layout of the Hugging Face hub, if that is another
    quantized/TYPE  `mlx_lm.convert` of `models/TYPE` to 4 bits
    hubbed/TYPE     `mlx_lm.convert` of `hub/TYPE` to 4 bits
    adapters/TYPE   a LoRA adapter of every linear layer of `quantized/TYPE`
    fused/TYPE      `mlx_lm.fuse` of the two, dequantized
    types.json      for each type what mlx-lm cannot do with it: a list of lines
"""

import contextlib
import io
import json
import shutil
import sys
import zlib
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.convert import convert
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import _get_classes, load_model, save_config, save_model

import configs
import hub
from reference import fuse_with_mlx_lm, without_side_files, write_json, write_tokenizer

BITS, GROUP = 4, 32
RANK = 4


def write_model(folder, kind):
    """Writes a model whose matrices are bfloat16 and whose vectors are float32, while config.json says float16."""
    config = json.loads(json.dumps(configs.of(kind)))
    model_class, arguments = _get_classes(config)
    mx.random.seed(zlib.crc32(kind.encode()))
    model = model_class(arguments.from_dict(json.loads(json.dumps(config))))

    def value(_, tensor):
        if not mx.issubdtype(tensor.dtype, mx.floating):
            return tensor
        # Constants, as norms and biases are at first, would not show which of them was taken.
        is_constant = tensor.size > 0 and bool(mx.all(tensor == tensor.flatten()[0]).item())
        noise = 0.05 * mx.random.normal(tensor.shape) if is_constant else 0
        return (tensor + noise).astype(mx.bfloat16 if tensor.ndim > 1 else mx.float32)

    model.update(tree_map_with_path(value, model.parameters()))
    save_model(folder, model)
    save_config(config | {"torch_dtype": "float16"}, folder / "config.json")
    write_tokenizer(folder)


def tensors_of(folder):
    found = {}
    for file in sorted(folder.glob("model*.safetensors")):
        found |= mx.load(str(file))
    return found


def write_hub(folder, model, layout):
    folder.mkdir(parents=True)
    own = tensors_of(model)
    tensors = {name: mx.contiguous(value) for name, value in layout(dict(own)).items()}
    if tensors.keys() == own.keys() and all(mx.array_equal(tensors[name], own[name]).item() for name in own):
        raise ValueError("its layout on the hub is that of mlx-lm")
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, {"format": "pt"})
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(model / name, folder)


def write_adapter(folder, base):
    """Writes factors that are whole multiples of a power of two, so that no order of summing matters."""
    model, _ = load_model(base)
    model.freeze()
    parameters = {"rank": RANK, "scale": 2.0, "dropout": 0.0}
    linear_to_lora_layers(model, len(model.layers), parameters)
    mx.random.seed(7)
    factors = {
        name: mx.random.randint(-31, 32, value.shape).astype(mx.float32) / 512
        for name, value in tree_flatten(model.trainable_parameters())
    }
    if not factors:
        raise ValueError("mlx-lm has no LoRA for its layers")
    folder.mkdir(parents=True)
    mx.save_safetensors(str(folder / "adapters.safetensors"), factors)
    write_json(
        folder / "adapter_config.json", {"fine_tune_type": "lora", "num_layers": -1, "lora_parameters": parameters}
    )


def finish_dequantizing(folder, quantized):
    """Dequantizes the layers that `mlx_lm.fuse --dequantize` leaves packed and then cannot load: those of
    `models/mla.py`."""
    tensors = tensors_of(folder)
    packed = [name.removesuffix(".scales") for name in tensors if name.endswith(".scales")]
    if not packed:
        return
    section = json.loads((quantized / "config.json").read_text())["quantization"]
    for module in packed:
        own = section.get(module)
        own = own if isinstance(own, dict) else section
        parts = [tensors.pop(f"{module}.{part}") for part in ("weight", "scales", "biases")]
        tensors[f"{module}.weight"] = mx.dequantize(*parts, own["group_size"], own["bits"])
    for file in folder.glob("model*.safetensors*"):
        file.unlink()
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, {"format": "mlx"})


def write_type(root, kind):
    """Returns what mlx-lm cannot do with the type."""
    model, quantized, adapter, fused = (root / part / kind for part in ("models", "quantized", "adapters", "fused"))
    cannot = []
    try:
        write_model(model, kind)
    except Exception as error:
        return [f"no model: {error}"]
    options = {"quantize": True, "q_bits": BITS, "q_group_size": GROUP}
    if kind in hub.LAYOUTS:
        write_hub(root / "hub" / kind, model, hub.LAYOUTS[kind])
        try:
            convert(str(root / "hub" / kind), str(root / "hubbed" / kind), **options)
        except Exception as error:
            cannot.append(f"hub: {error}")
    try:
        convert(str(model), str(quantized), **options)
    except Exception as error:
        return [*cannot, f"quantize: {error}"]
    try:
        write_adapter(adapter, quantized)
        fuse_with_mlx_lm(quantized, adapter, fused, False)
        finish_dequantizing(fused, quantized)
    except Exception as error:
        cannot.append(f"fuse: {error}")
    return cannot


def main():
    root = Path(sys.argv[1])
    for part in ("models", "hub", "quantized", "hubbed", "adapters", "fused"):
        (root / part).mkdir(parents=True)
    mx.set_default_device(mx.cpu)
    found = {}
    with without_side_files(), contextlib.redirect_stdout(io.StringIO()):
        for kind in configs.kinds():
            found[kind] = write_type(root, kind)
    write_json(root / "types.json", {"types": found, "left_out": configs.LEFT_OUT})


if __name__ == "__main__":
    main()
