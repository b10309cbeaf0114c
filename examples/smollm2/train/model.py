"""SmolLM2-135M in JAX: the forward pass, the loss, and the share of exact answers.

Parameters are one flat dictionary, named as in the safetensors file. LoRA matrices are a second
one, named as in mlx-lm's `adapters.safetensors`. Knows nothing of how the latter are trained.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tokenizers import Tokenizer

from data import Item, chat

HIDDEN = 576
LAYERS = 30
HEADS = 9
KV_HEADS = 3
HEAD_DIM = HIDDEN // HEADS
CONTEXT = {"tool": 80, "direct": 56}  # tokens of a row, and the most that a chat may have
ANSWER = {"tool": 36, "direct": 12}  # likewise of an answer, with the token that ends it
EPSILON = 1e-5
ROPE_THETA = 100000.0
LORA_SCALE = 20.0

Params = dict[str, jax.Array]


class Batch(NamedTuple):
    """Chats as tokens, and of each answer: the places before its tokens, these, which are real."""

    ids: jax.Array
    places: jax.Array
    targets: jax.Array
    is_answer: jax.Array


def forward(params: Params, lora: Params | None, ids: jax.Array) -> jax.Array:
    """Returns the last hidden states of `ids` [batch, length]."""
    batch_size, length = ids.shape
    mask = jnp.where(jnp.tril(jnp.ones((length, length))) > 0, 0.0, -1e9)

    def project(name, x):
        y = x @ params[name + ".weight"].T
        if lora is not None and name + ".lora_a" in lora:
            y = y + LORA_SCALE * ((x @ lora[name + ".lora_a"]) @ lora[name + ".lora_b"])
        return y

    def heads(name, x, count):
        return project(name, x).reshape(batch_size, length, count, HEAD_DIM).transpose(0, 2, 1, 3)

    x = params["model.embed_tokens.weight"][ids]
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        h = _rms_norm(x, params[prefix + "input_layernorm.weight"])
        queries = _rope(heads(prefix + "self_attn.q_proj", h, HEADS))
        keys = _rope(heads(prefix + "self_attn.k_proj", h, KV_HEADS))
        values = heads(prefix + "self_attn.v_proj", h, KV_HEADS)
        keys = jnp.repeat(keys, HEADS // KV_HEADS, 1)
        values = jnp.repeat(values, HEADS // KV_HEADS, 1)
        scores = queries @ keys.transpose(0, 1, 3, 2) / HEAD_DIM**0.5 + mask
        attention = jax.nn.softmax(scores, -1) @ values
        attention = attention.transpose(0, 2, 1, 3).reshape(batch_size, length, HIDDEN)
        x = x + project(prefix + "self_attn.o_proj", attention)

        h = _rms_norm(x, params[prefix + "post_attention_layernorm.weight"])
        gate = jax.nn.silu(project(prefix + "mlp.gate_proj", h))
        x = x + project(prefix + "mlp.down_proj", gate * project(prefix + "mlp.up_proj", h))
    return _rms_norm(x, params["model.norm.weight"])


def _rms_norm(x, weight):
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + EPSILON) * weight


def _rope(x):
    half = HEAD_DIM // 2
    frequencies = 1.0 / (ROPE_THETA ** (jnp.arange(half) / half))
    angles = jnp.arange(x.shape[2])[:, None] * frequencies[None]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    low, high = x[..., :half], x[..., half:]
    return jnp.concatenate([low * cos - high * sin, high * cos + low * sin], -1)


def answer_logits(params: Params, lora: Params | None, batch: Batch) -> jax.Array:
    """Returns the logits of the answers' tokens: the large vocabulary is multiplied only there."""
    hidden = forward(params, lora, batch.ids)
    hidden = jnp.take_along_axis(hidden, batch.places[..., None], 1)
    return hidden @ params["model.embed_tokens.weight"].T


def loss(params: Params, lora: Params | None, batch: Batch) -> jax.Array:
    """Returns the mean cross-entropy of the answers. Every answer counts the same."""
    logits = answer_logits(params, lora, batch)
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
    return ((entropy * batch.is_answer).sum(1) / batch.is_answer.sum(1)).mean()


def encode(tokenizer: Tokenizer, items: Sequence[Item]) -> Batch:
    """Turns chats of one kind into tokens."""
    context, answer = CONTEXT[items[0].kind], ANSWER[items[0].kind]
    ids = np.zeros((len(items), context), np.int32)
    places = np.zeros((len(items), answer), np.int32)
    targets = np.zeros((len(items), answer), np.int32)
    is_answer = np.zeros((len(items), answer), np.float32)
    for row, item in enumerate(items):
        prompt = len(tokenizer.encode(chat(item.question)).ids)
        tokens = tokenizer.encode(chat(item.question, item.answer)).ids
        count = len(tokens) - prompt
        ids[row, : len(tokens)] = tokens
        places[row, :count] = np.arange(prompt - 1, len(tokens) - 1)
        targets[row, :count] = tokens[prompt:]
        is_answer[row, :count] = 1
    return Batch(jnp.array(ids), jnp.array(places), jnp.array(targets), jnp.array(is_answer))


@jax.jit
def _wrong_tokens(params, lora, batch):
    best = answer_logits(params, lora, batch).argmax(-1)
    return ((best != batch.targets) * batch.is_answer).sum(1)


def exact(
    params: Params, lora: Params | None, tokenizer: Tokenizer, items: Sequence[Item], size: int = 8
) -> float:
    """Returns the share of the questions that a greedy answer gets right to the letter.

    That is so if every token of the right answer is the likeliest one after those before it.
    """
    right = 0
    for start in range(0, len(items), size):
        part = items[start : start + size]
        padded = list(part) + [part[0]] * (size - len(part))
        wrong = _wrong_tokens(params, lora, encode(tokenizer, padded))
        right += int((wrong[: len(part)] == 0).sum())
    return right / len(items)
