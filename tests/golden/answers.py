"""Writes answers.json: what mlx-lm answers to both suites of the example, for each config of the top pipeline.yaml.

Needs `pip install -r examples/tiny/train/requirements.txt`; about three minutes on two cores. Activations, scales and
biases are float32, as in our own benchmark on a CPU.
"""

import json
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "examples/tiny/train"))
import measure  # noqa: E402


def main() -> None:
    mx.set_default_device(mx.cpu)
    with tempfile.TemporaryDirectory() as folder:
        made = measure.make_models(Path(folder))
        configs = {"base": (measure.BASE, None), "adapter": (measure.BASE, measure.ADAPTER)}
        configs["fused-f16"] = (made["fused, float16"], None)
        configs |= {f"{bits}bit": (made[f"then {bits} bits"], None) for bits in (8, 6, 4)}
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
