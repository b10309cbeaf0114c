"""A small Qwen2 in JAX: the forward pass, the loss, and greedy answers.

Parameters are one flat dictionary, named as in the safetensors file. LoRA matrices are a second
one, named as in mlx-lm's `adapters.safetensors`. Knows nothing of how either is trained.
"""

import random
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tokenizers import Tokenizer

from data import Item, chat

HIDDEN = 256
INTERMEDIATE = 768
LAYERS = 4
HEADS = 4
KV_HEADS = 2
HEAD_DIM = HIDDEN // HEADS
VOCABULARY = 512
CONTEXT = 96  # tokens of a training row, and the most that a chat may have
EPSILON = 1e-6
ROPE_THETA = 10000.0
END_OF_TURN = 2  # the token <|im_end|>
LORA_SCALE = 20.0

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "intermediate_size": INTERMEDIATE,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "rms_norm_eps": EPSILON,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": True,
    "max_position_embeddings": 512,
    "rope_theta": ROPE_THETA,
    "torch_dtype": "float16",
    "eos_token_id": END_OF_TURN,
    "bos_token_id": 0,
}

# (name, outputs, inputs, whether it has a bias), in the order in which they are drawn
PROJECTIONS = [
    ("self_attn.q_proj", HIDDEN, HIDDEN, True),
    ("self_attn.k_proj", HEAD_DIM * KV_HEADS, HIDDEN, True),
    ("self_attn.v_proj", HEAD_DIM * KV_HEADS, HIDDEN, True),
    ("self_attn.o_proj", HIDDEN, HIDDEN, False),
    ("mlp.gate_proj", INTERMEDIATE, HIDDEN, False),
    ("mlp.up_proj", INTERMEDIATE, HIDDEN, False),
    ("mlp.down_proj", HIDDEN, INTERMEDIATE, False),
]

Params = dict[str, jax.Array]


def init(rng: np.random.Generator) -> Params:
    """Draws the parameters of an untrained model."""
    params = {
        "model.embed_tokens.weight": rng.normal(0, 0.02, (VOCABULARY, HIDDEN)),
        "model.norm.weight": np.ones(HIDDEN),
    }
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        params[prefix + "input_layernorm.weight"] = np.ones(HIDDEN)
        params[prefix + "post_attention_layernorm.weight"] = np.ones(HIDDEN)
        for name, outputs, inputs, has_bias in PROJECTIONS:
            params[f"{prefix}{name}.weight"] = rng.normal(0, 0.03, (outputs, inputs))
            if has_bias:
                params[f"{prefix}{name}.bias"] = np.zeros(outputs)
    return {name: jnp.array(value, jnp.float32) for name, value in params.items()}


def forward(params: Params, lora: Params | None, ids: jax.Array) -> jax.Array:
    """Returns the logits after every token of `ids` [batch, length]."""
    batch_size, length = ids.shape
    mask = jnp.where(jnp.tril(jnp.ones((length, length))) > 0, 0.0, -1e9)

    def project(name, x):
        y = x @ params[name + ".weight"].T
        if name + ".bias" in params:
            y = y + params[name + ".bias"]
        if lora is not None and name + ".lora_a" in lora:
            y = y + LORA_SCALE * ((x @ lora[name + ".lora_a"]) @ lora[name + ".lora_b"])
        return y

    def heads(name, x, count):
        return project(name, x).reshape(batch_size, length, count, HEAD_DIM).transpose(0, 2, 1, 3)

    x = params["model.embed_tokens.weight"][ids]
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        h = _rms_norm(x, params[prefix + "input_layernorm.weight"])
        queries = heads(prefix + "self_attn.q_proj", h, HEADS)
        keys = heads(prefix + "self_attn.k_proj", h, KV_HEADS)
        values = heads(prefix + "self_attn.v_proj", h, KV_HEADS)
        queries = _rope(queries, length)
        keys = _rope(keys, length)
        keys = jnp.repeat(keys, HEADS // KV_HEADS, 1)
        values = jnp.repeat(values, HEADS // KV_HEADS, 1)
        scores = queries @ keys.transpose(0, 1, 3, 2) / HEAD_DIM**0.5 + mask
        attention = jax.nn.softmax(scores, -1) @ values
        attention = attention.transpose(0, 2, 1, 3).reshape(batch_size, length, HIDDEN)
        x = x + project(prefix + "self_attn.o_proj", attention)

        h = _rms_norm(x, params[prefix + "post_attention_layernorm.weight"])
        gate = jax.nn.silu(project(prefix + "mlp.gate_proj", h))
        x = x + project(prefix + "mlp.down_proj", gate * project(prefix + "mlp.up_proj", h))
    x = _rms_norm(x, params["model.norm.weight"])
    return x @ params["model.embed_tokens.weight"].T


def _rms_norm(x, weight):
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + EPSILON) * weight


def _rope(x, length):
    half = HEAD_DIM // 2
    frequencies = 1.0 / (ROPE_THETA ** (jnp.arange(half) / half))
    angles = jnp.arange(length)[:, None] * frequencies[None]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    low, high = x[..., :half], x[..., half:]
    return jnp.concatenate([low * cos - high * sin, high * cos + low * sin], -1)


_forward_jit = jax.jit(forward)


def loss(params: Params, lora: Params | None, ids: jax.Array, is_answer: jax.Array) -> jax.Array:
    """Returns the mean cross-entropy: answers count in full, the rest of a chat a twentieth."""
    logits = forward(params, lora, ids[:, :-1])
    targets = ids[:, 1:]
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    weights = 0.05 * (targets > 0) + 0.95 * is_answer
    return (entropy * weights).sum() / weights.sum()


def batch(tokenizer: Tokenizer, pool: Sequence[Item], size: int) -> tuple[jax.Array, jax.Array]:
    """Draws `size` chats of the pool: their tokens, and a mask of the targets that are answers."""
    ids = np.zeros((size, CONTEXT), np.int32)
    is_answer = np.zeros((size, CONTEXT - 1), np.float32)
    for row, (question, answer, _) in enumerate(random.choices(pool, k=size)):
        prompt = len(tokenizer.encode(chat(question)).ids)
        tokens = tokenizer.encode(chat(question, answer)).ids[:CONTEXT]
        ids[row, : len(tokens)] = tokens
        is_answer[row, prompt - 1 : len(tokens) - 1] = 1
    return jnp.array(ids), jnp.array(is_answer)


def answer(params: Params, lora: Params | None, tokenizer: Tokenizer, question: str) -> str:
    """Answers greedily. Without a key/value cache: slow, and simple."""
    prompt = tokenizer.encode(chat(question)).ids
    length = len(prompt)
    ids = np.zeros((1, CONTEXT), np.int32)
    ids[0, :length] = prompt
    while length < CONTEXT:
        logits = _forward_jit(params, lora, jnp.array(ids))
        token = int(logits[0, length - 1].argmax())
        if token == END_OF_TURN:
            break
        ids[0, length] = token
        length += 1
    return tokenizer.decode(list(ids[0, len(prompt) : length]))


def score(
    params: Params, lora: Params | None, tokenizer: Tokenizer, questions: Sequence[Item]
) -> tuple[float, float]:
    """Returns the shares of right decisions (tool or direct) and of exact answers."""
    decided = exact = 0
    for item in questions:
        text = answer(params, lora, tokenizer, item.question)
        decided += ("<tool_call>" in text) == (item.kind == "tool")
        exact += text == item.answer
    return decided / len(questions), exact / len(questions)
