"""Writes answers.json: what mlx-lm answers to both suites of the example, for each config of the top pipeline.yaml.

Needs `pip install -r examples/tiny/train/requirements.txt`; about three minutes on two cores. Activations, scales and
biases are float32, as in our own benchmark on a CPU.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np
import yaml

from keep import dither, keep, packed, seed_of

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "examples/tiny/train"))
import measure  # noqa: E402


def make_kept(folder: Path, fused: Path) -> Path:
    """Makes the model that `rounding: keep` makes at 4 bits: the base, with the codes that the training moves."""
    shutil.copytree(measure.BASE, folder)
    model = mx.load(str(folder / "model.safetensors"))
    updated = mx.load(str(fused / "model.safetensors"))
    adapted = {name.rsplit(".", 1)[0] for name in mx.load(str(measure.ADAPTER / "adapters.safetensors"))}
    for module in adapted:
        weight = np.array(updated[f"{module}.weight"].astype(mx.float32))
        scales, biases = (np.array(model[f"{module}.{side}"].astype(mx.float32)) for side in ("scales", "biases"))
        codes = np.array(model[f"{module}.weight"])[..., None] >> (np.arange(8, dtype=np.uint32) * 4) & 15
        numbers = dither(seed_of(f"{module}.weight"), *weight.shape)
        made, _ = keep(codes.reshape(weight.shape), scales, biases, weight, "float16", 64, 4, 4, numbers)
        model[f"{module}.weight"] = mx.array(packed(made, 4).view(np.uint32))
    # What is loaded is read when it is needed, so the file must stay until the new one is there.
    mx.save_safetensors(str(folder / "new.safetensors"), model, metadata={"format": "mlx"})
    (folder / "new.safetensors").replace(folder / "model.safetensors")
    return folder


def main() -> None:
    mx.set_default_device(mx.cpu)
    with tempfile.TemporaryDirectory() as folder:
        made = measure.make_models(Path(folder))
        configs = {"base": (measure.BASE, None), "adapter": (measure.BASE, measure.ADAPTER)}
        configs["fused-f16"] = (made["fused, float16"], None)
        configs |= {f"{bits}bit": (made[f"then {bits} bits"], None) for bits in (8, 6, 4)}
        configs["4bit-keep"] = (make_kept(Path(folder) / "kept", made["fused, float16"]), None)
        answers = {}
        for name in measure.SUITES:
            suite = yaml.safe_load((measure.EXAMPLE / f"{name}.yaml").read_text())
            answers[name] = {}
            for config, (path, adapter) in configs.items():
                model, tokenizer = measure.load(path, adapter)
                answers[name][config] = [
                    measure.answer(model, tokenizer, query["prompt"], suite["max_tokens"]) for query in suite["queries"]
                ]
    (HERE / "answers.json").write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
