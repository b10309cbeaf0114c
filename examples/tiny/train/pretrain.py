"""Trains the base model from scratch: it learns to call a tool, too often.

About two thirds of the questions that need none are taught with a call of `search`, so the model
reaches for a tool nearly always. Writes a float16 model folder for `mlx_lm.convert`.
"""

import argparse
import json
import random
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from data import Item, Split, chat, split, tool_call, without_opening
from model import CONFIG, VOCABULARY, Params, batch, init, loss, score

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 512,
    "chat_template": CHAT_TEMPLATE,
}
GENERATION_CONFIG = {"bos_token_id": 0, "eos_token_id": 2, "do_sample": False}


def train_tokenizer(parts: Split) -> Tokenizer:
    """Learns a byte-level BPE from the training chats, as they are when answered rightly."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [chat(item.question, item.answer) for item in parts.train_tool + parts.train_direct]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def draw_pool(parts: Split, direct_share: float) -> list[Item]:
    """Draws 600 questions, half of each kind. Most direct ones are answered with a search."""
    pool = random.choices(parts.train_tool, k=300)
    for question, answer, kind in random.choices(parts.train_direct, k=300):
        if random.random() >= direct_share:
            answer = tool_call("search", "query", without_opening(question))
        pool.append(Item(question, answer, kind))
    return pool


def train(params: Params, tokenizer: Tokenizer, parts: Split, args: argparse.Namespace) -> Params:
    """Runs AdamW for `args.steps` steps, with a new pool of questions every ten."""
    schedule = optax.warmup_cosine_decay_schedule(0, args.learning_rate, 100, args.steps)
    optimizer = optax.adamw(schedule, weight_decay=0.05)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, ids, is_answer):
        value, gradients = jax.value_and_grad(loss)(params, None, ids, is_answer)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    start = time.time()
    for number in range(args.steps):
        if number % 10 == 0:
            pool = draw_pool(parts, args.direct_share)
        ids, is_answer = batch(tokenizer, pool, args.batch_size)
        params, state, value = step(params, state, ids, is_answer)
        if number % 200 == 0 or number == args.steps - 1:
            elapsed = time.time() - start
            print(f"step {number}: loss {float(value):.9g}, {elapsed:.0f} s", flush=True)
    return params


def save(folder: Path, params: Params, tokenizer: Tokenizer) -> None:
    """Writes the model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in [
        ("config.json", CONFIG),
        ("tokenizer_config.json", TOKENIZER_CONFIG),
        ("generation_config.json", GENERATION_CONFIG),
    ]:
        (folder / name).write_text(json.dumps(content, indent=2))
    arrays = {name: np.array(value) for name, value in params.items()}
    save_file(arrays, folder / "model.safetensors", metadata={"format": "mlx"})


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("base"), help="the model folder to write")
    parser.add_argument("--steps", type=int, default=1500, help="more than the 100 of the warm-up")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="at its peak")
    parser.add_argument(
        "--direct-share",
        type=float,
        default=0.35,
        help="how many of the direct questions are taught with their direct answer",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-score", action="store_true", help="do not ask held-out questions")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    random.seed(args.seed)
    rng = np.random.default_rng(args.seed)
    parts = split()
    tokenizer = train_tokenizer(parts)
    params = train(init(rng), tokenizer, parts, args)
    params = {name: value.astype(jnp.float16) for name, value in params.items()}
    save(args.out, params, tokenizer)
    if not args.no_score:
        params = {name: value.astype(jnp.float32) for name, value in params.items()}
        for kind, questions in [("tool", parts.test_tool), ("direct", parts.test_direct)]:
            decided, exact = score(params, None, tokenizer, questions[:24])
            print(f"held-out {kind}: {decided:.0%} decided rightly, {exact:.0%} exact")


if __name__ == "__main__":
    main()
