"""Writes reading.json: how well mlx-lm's models predict the texts of the example's suite, and how far they are from
the fused float16 model.

Losses are mlx-lm's (`perplexity.py`: cross-entropy in float32, standard error with one degree of freedom, the delta
method); divergences are summed in float64 by NumPy. Needs `pip install -r examples/tiny/train/requirements.txt`.
"""

import json
import math
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "examples/tiny/train"))
import measure  # noqa: E402

REFERENCE = "fused-f16"


def distributions(path: Path, adapter: Path | None, texts: list[str]):
    """Returns the loss of each foreseen token, and the log-probabilities of all, in float64."""
    model, tokenizer = measure.load(path, adapter)
    losses, logs = [], []
    for text in texts:
        tokens = mx.array([tokenizer.encode(text)])
        logits = model(tokens[:, :-1]).astype(mx.float32)
        losses.append(np.array(nn.losses.cross_entropy(logits, tokens[:, 1:], reduction="none"))[0])
        wide = np.array(logits[0]).astype(np.float64)
        wide -= wide.max(axis=-1, keepdims=True)
        logs.append(wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True)))
    return np.concatenate(losses).astype(np.float64), np.concatenate(logs)


def error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(values.size))


def main() -> None:
    mx.set_default_device(mx.cpu)
    texts = yaml.safe_load((measure.EXAMPLE / "discrimination.yaml").read_text())["texts"]
    with tempfile.TemporaryDirectory() as folder:
        made = measure.make_models(Path(folder))
        configs = {"base": (measure.BASE, None), "adapter": (measure.BASE, measure.ADAPTER)}
        configs[REFERENCE] = (made["fused, float16"], None)
        configs |= {f"{bits}bit": (made[f"then {bits} bits"], None) for bits in (8, 6, 4)}
        read = {name: distributions(*place, texts) for name, place in configs.items()}
    reference = read[REFERENCE][1]
    golden = {}
    for name, (losses, logs) in read.items():
        kl = (np.exp(reference) * (reference - logs)).sum(axis=-1)
        value = math.exp(losses.mean())
        golden[name] = {
            "tokens": losses.size,
            "perplexity": value,
            "standard_error": value * error(losses),
            "mean_kl": float(kl.mean()),
            "kl_standard_error": error(kl),
            "top1_agreement": float((logs.argmax(-1) == reference.argmax(-1)).mean()),
        }
    (HERE / "reading.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
