"""Measures how fast mlx-lm answers a prompt. It is run by `decode.py` in mlx-lm's own Python and prints a line of JSON.

    python bench/mlx_lm_decode.py MODEL PROMPT MAX_TOKENS as-it-comes|float32

PROMPT is what the user says, as the model's chat template puts it. `float32` casts all floats, as pipeline does on a
CPU. A short answer comes first and is not timed.
"""

import json
import sys
import time
from pathlib import Path

import mlx.core as mx
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model
from transformers import PreTrainedTokenizerFast

WARM_UP_TOKENS = 4


def answer(model, prompt, max_tokens):
    """Returns the tokens, the seconds until the first was known, and those for the others."""
    tokens, start, first = [], time.perf_counter(), 0.0
    for token, _ in generate_step(prompt, model, max_tokens=max_tokens):
        tokens.append(int(token))
        first = first or time.perf_counter()
    return tokens, first - start, time.perf_counter() - first


def main():
    folder, prompt, max_tokens, activations = sys.argv[1:]
    mx.set_default_device(mx.cpu)
    # Not AutoTokenizer, which gives a `qwen2` the tokenizer of Qwen2 whatever the folder names.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    messages = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer.encode(text, add_special_tokens=False)
    model, _ = load_model(Path(folder))
    if activations == "float32":
        model.set_dtype(mx.float32)
        mx.eval(model.parameters())
    answer(model, mx.array(prompt), min(WARM_UP_TOKENS, int(max_tokens)))
    tokens, prefill, decode = answer(model, mx.array(prompt), int(max_tokens))
    speeds = {"prefill": len(prompt) / prefill, "decode": (len(tokens) - 1) / decode}
    print(json.dumps({"prompt_tokens": len(prompt), "tokens": tokens, **speeds}))


if __name__ == "__main__":
    main()
