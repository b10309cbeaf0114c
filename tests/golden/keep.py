"""Makes keep.safetensors: updated weights rounded on the grid of their base, computed with numpy.

    python keep.py [FILE]

Needs numpy and safetensors. Nothing of `pipeline` is used. A second run gives the same bytes. The functions are the reference of
the formulas in docs/rounding.md; `bench/rounding.py` uses them too.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

ALONG = 10.0  # how much an error along a direction of length 1 counts beside an error anywhere
NAME = "model.layers.0.self_attn.q_proj.weight"
FIRST_ROW = 5
ROWS, COLUMNS = 4, 128
TYPES = ("float16", "bfloat16", "float32")
BITS = (2, 3, 4, 5, 6, 8)
GROUPS = (32, 64, 128)


def seed_of(name):
    """Returns the seed of a tensor: the first eight bytes of the SHA-256 of its name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def dither(seed, rows, columns, first_row=0):
    """Returns a number from -1/2 to 1/2 for each weight: the top 24 bits of splitmix64, centred, in float32."""
    row = np.arange(first_row, first_row + rows, dtype=np.uint64)[:, None] << np.uint64(32)
    with np.errstate(over="ignore"):
        x = np.uint64(seed % 2**64) + row + np.arange(columns, dtype=np.uint64)[None]
        x *= np.uint64(0x9E3779B97F4A7C15)
        x ^= x >> np.uint64(30)
        x *= np.uint64(0xBF58476D1CE4E5B9)
        x ^= x >> np.uint64(27)
        x *= np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    half = np.float32(0.5)
    return ((x >> np.uint64(40)).astype(np.float32) + half) * np.float32(2**-24) - half


def rounded(values, kind):
    """Rounds float32 values to a type, half to even, and widens them again."""
    values = np.asarray(values, np.float32)
    if kind == "float16":
        return values.astype(np.float16).astype(np.float32)
    if kind == "bfloat16":
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    return values


def dequantized(codes, scales, biases, group, kind):
    """Returns the weights of codes as `fuse` computes them: the product and the sum are each rounded to the type."""
    scales, biases = (np.repeat(side, group, axis=1) for side in (scales, biases))
    return rounded(rounded(codes.astype(np.float32) * scales, kind) + biases, kind)


def keep(codes, scales, biases, updated, kind, group, bits, wanted, numbers):
    """Rounds `updated` on the grid of the base, made finer if `wanted` is more than `bits`: codes and scales."""
    more = wanted - bits
    finer = rounded(scales / np.float32(2**more), kind)
    is_exact = (finer * np.float32(2**more) == scales) & (scales != 0)
    finer = np.where(is_exact, finer, scales)
    factor = np.repeat(np.where(is_exact, 2**more, 1), group, axis=1)
    step = np.repeat(finer, group, axis=1)
    delta = updated - dequantized(codes, scales, biases, group, kind)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        moved = np.where(step == 0, 0, np.rint(delta / step + numbers))
    return np.clip(codes * factor + moved, 0, 2**wanted - 1).astype(np.uint8), finer


def settle(codes, start, steps, delta, numbers, directions, levels):
    """Goes once over the columns: a code moves by a step where that makes |e|² + 10 |e V|² of its row smaller.

    `start` are the base's codes on the finer grid, `delta` the update, `directions` are V, [columns, count]. Errors are less
    the random part, so a code moves first where rounding was nearly undecided. Sums are float64 and ascending.
    """
    codes, steps, delta = codes.astype(np.int64), steps.astype(np.float64), delta.astype(np.float64)
    errors = (codes - start) * steps - delta
    along = np.zeros((len(codes), directions.shape[1]))
    for column, direction in enumerate(directions):
        along += errors[:, column, None] * direction
    errors -= numbers * steps
    for column, direction in enumerate(directions):
        slope, square = np.zeros(len(codes)), 0.0
        for number, value in enumerate(direction):
            square += value * value
            slope += along[:, number] * value
        bend = 1 + ALONG * square
        gradient, step = errors[:, column] + ALONG * slope, steps[:, column]
        with np.errstate(divide="ignore", invalid="ignore"):
            by = np.clip(np.nan_to_num(np.rint(-gradient / (bend * step))), -1, 1).astype(np.int64)
        size, moved = by * step, codes[:, column] + by
        is_better = 2 * size * gradient + size * size * bend < 0
        moves = is_better & (moved >= 0) & (moved <= levels) & (delta[:, column] != 0)
        codes[:, column] = np.where(moves, moved, codes[:, column])
        along += np.where(moves, size, 0.0)[:, None] * direction
    return codes.astype(np.uint8)


def stored(values, kind):
    """Returns values of a type as they lie in a file; numpy has no bfloat16, so that is written as uint16."""
    if kind == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(kind)


def packed(codes, bits):
    """Returns the codes as a little-endian bit stream."""
    stream = (codes[..., None] >> np.arange(bits)) & 1
    return np.packbits(stream.reshape(codes.shape[0], -1).astype(np.uint8), axis=1, bitorder="little")


def base(random, kind, bits, group):
    """Returns codes, scales and biases with steps of every kind: usual, negative, zero and subnormal ones."""
    shape = (ROWS, COLUMNS // group)
    codes = random.integers(0, 2**bits, (ROWS, COLUMNS))
    scales = random.uniform(0.005, 0.02, shape) * random.choice([1, -1], shape)
    scales[2, 0] = 0
    smallest = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149}[kind]
    scales[3] = smallest * random.integers(1, 200, shape[1])
    biases = random.uniform(-0.2, 0.2, shape)
    biases[3] = 0
    return codes, rounded(scales, kind), rounded(biases, kind)


def updates(random, scales, group):
    """Returns an update for each weight: a small one, none at all, and one that leads off the grid."""
    step = np.repeat(np.abs(scales), group, axis=1)
    update = step * random.normal(0, 0.3, (ROWS, COLUMNS))
    update[1, ::2] = 0
    update[0, ::16] *= 200
    update[2, :group] = 0.01
    return update.astype(np.float32)


def main():
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "keep.safetensors"
    random = np.random.default_rng(14)
    numbers = dither(seed_of(NAME), ROWS, COLUMNS, FIRST_ROW)
    directions = random.normal(0, 0.1, (COLUMNS, 3))
    tensors = {"directions": directions}
    for kind in TYPES:
        for bits in BITS:
            for group in GROUPS:
                codes, scales, biases = base(random, kind, bits, group)
                before = dequantized(codes, scales, biases, group, kind)
                updated = rounded(before + updates(random, scales, group), kind)
                name = f"{kind}/{bits}/{group}"
                sides = {"scales": stored(scales, kind), "biases": stored(biases, kind)}
                tensors |= {f"base/{name}/{part}": side for part, side in sides.items()}
                tensors |= {f"updated/{name}": stored(updated, kind), f"base/{name}/weight": packed(codes, bits)}
                for wanted in [more for more in BITS if more >= bits]:
                    made = keep(codes, scales, biases, updated, kind, group, bits, wanted, numbers)
                    tensors[f"kept/{name}/{wanted}/weight"] = packed(made[0], wanted)
                    tensors[f"kept/{name}/{wanted}/scales"] = stored(made[1], kind)
                    if (bits, group) == (4, 64):
                        step = np.repeat(made[1], group, axis=1)
                        factor = np.repeat(np.where(made[1] == scales, 1, 2 ** (wanted - bits)), group, axis=1)
                        settled = settle(
                            made[0], codes * factor, step, updated - before, numbers, directions, 2**wanted - 1
                        )
                        tensors[f"settled/{name}/{wanted}"] = packed(settled, wanted)
    save_file({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}, target)


if __name__ == "__main__":
    main()
