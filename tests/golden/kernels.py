"""Makes the golden files that the weight kernels must reproduce bit for bit.

    python kernels.py [FOLDER]

Needs numpy and `mlx[cpu]==0.32.2`. Writes `quantize.safetensors` and
`merge.safetensors` beside this script, or into FOLDER. A second run gives the same bytes.
"""

import json
import struct
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np

DTYPES = {"float16": mx.float16, "bfloat16": mx.bfloat16, "float32": mx.float32}
FORMAT_NAMES = {
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.float32: "F32",
    mx.uint32: "U32",
    mx.uint8: "U8",
}
BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)
BLOCK = 128  # the largest group: each kind of weights fills one, so it meets every group size
SMALLEST = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149}
LARGEST = {
    "float16": 65504.0,
    "bfloat16": (2 - 2.0**-7) * 2.0**127,
    "float32": (2 - 2.0**-23) * 2.0**127,
}
SCALE = 20.0


def nasty_weights(dtype: str) -> np.ndarray:
    """Returns [6, 256] values for `dtype`, every half row of another kind."""
    rng = np.random.default_rng(20)
    signs = rng.choice([-1.0, 1.0], BLOCK)

    normal = rng.normal(0, 0.05, BLOCK)

    zeros = np.zeros(BLOCK)
    zeros[1::3] = -0.0

    # No range at all: of both signs, and below the smallest scale of 1e-7.
    constant = np.repeat([0.3, -0.3, 1e-8, -7.0], 32)

    positive = rng.uniform(0.5, 1.5, BLOCK)
    negative = -rng.uniform(1e-3, 2.0, BLOCK)
    subnormal = rng.integers(-1000, 1001, BLOCK) * SMALLEST[dtype]

    # Up to the largest value, all of one sign: the range does not overflow, nor does q * scale.
    large = rng.uniform(0.5, 1.0, BLOCK) * LARGEST[dtype]
    large[[5, 69]] = LARGEST[dtype]

    mixed = signs * 10.0 ** rng.uniform(-6, 2, BLOCK)

    # |lo| == |hi|: the edge is the upper one.
    tied = rng.uniform(-0.5, 0.5, BLOCK)
    tied[0::32] = 0.5
    tied[7::32] = -0.5

    # Steps that are whole numbers at most bits, and values half way between two of them.
    halfway = rng.integers(0, 30, BLOCK) / 2
    halfway[0::32] = [255, 63, 31, 15]
    halfway[1::32] = 0

    # Groups of zeros but for one value.
    lonely = np.zeros(BLOCK)
    lonely[[40, 90]] = [0.01, -0.02]

    # One step of a coarse grid, then a range below the smallest scale.
    narrow = 1.0 + rng.integers(0, 2, BLOCK) * 2.0**-7
    narrow[64:] = rng.uniform(-1e-7, 1e-7, 64)

    kinds = [normal, zeros, constant, positive, negative, subnormal]
    kinds += [large, mixed, tied, halfway, lonely, narrow]
    return np.concatenate(kinds).reshape(6, 2 * BLOCK)


def quantize_file() -> dict[str, mx.array]:
    """Quantizes and dequantizes with every dtype, number of bits and group size."""
    tensors = {}
    for dtype in DTYPES:
        w = as_mlx(nasty_weights(dtype), dtype)
        tensors[f"w/{dtype}"] = w
        for bits in BITS:
            for group_size in GROUP_SIZES:
                case = f"{dtype}/{bits}/{group_size}"
                words, scales, biases = mx.quantize(w, group_size, bits)
                tensors[f"q/{case}/weight"] = words
                tensors[f"q/{case}/scales"] = scales
                tensors[f"q/{case}/biases"] = biases
                tensors[f"dq/{case}"] = mx.dequantize(words, scales, biases, group_size, bits)
    return tensors


def merge_file() -> dict[str, mx.array]:
    """Merges a LoRA update, as mlx-lm does and in the order that this project promises."""
    rng = np.random.default_rng(21)
    lora_a = (rng.uniform(-1, 1, (32, 4)) / np.sqrt(32)).astype(np.float32)
    lora_b = rng.normal(0, 0.01, (4, 24)).astype(np.float32)
    lora_b[:, 3] = 0  # a row without an update
    lora_b[1, 5] = -0.0
    weight = rng.normal(0, 0.05, (24, 32))
    weight[7] *= 1000  # where the update is near the last bit of the weight
    weight[11] *= 1e-5  # where the weight is near nothing

    tensors = {"lora_a": mx.array(lora_a), "lora_b": mx.array(lora_b)}
    for dtype in DTYPES:
        w = as_mlx(weight, dtype)
        fused = merge_as_mlx_lm(w, tensors["lora_a"], tensors["lora_b"])
        ordered = as_mlx(merge_in_order(as_float32(w), lora_a, lora_b, dtype), dtype)
        tensors |= {f"w/{dtype}": w, f"fused/{dtype}": fused, f"ordered/{dtype}": ordered}
        different = int((raw(fused) != raw(ordered)).sum())
        print(f"merge, {dtype}: {different} of {w.size} elements differ between fused and ordered")
        # None with the wheel's reference BLAS. Another may reorder the sums: a few last bits.
        assert different <= w.size // 10, "the two orders differ by more than rounding"
    return tensors


def merge_as_mlx_lm(w: mx.array, lora_a: mx.array, lora_b: mx.array) -> mx.array:
    """Merges with the lines of `LoRALinear.fuse` in mlx_lm/tuner/lora.py."""
    delta = ((SCALE * lora_b.T) @ lora_a.T).astype(w.dtype)
    return w + delta


def merge_in_order(w: np.ndarray, a: np.ndarray, b: np.ndarray, dtype: str) -> np.ndarray:
    """Merges in float32 with k ascending, a multiply and then an add, rounded to `dtype` twice."""
    delta = np.zeros_like(w)
    for k in range(len(b)):
        delta += (np.float32(SCALE) * b[k])[:, None] * a[:, k][None, :]
    return rounded(w + rounded(delta, dtype), dtype)


def rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    """Rounds float32 values to `dtype`, half to even, and returns them in float32."""
    if dtype == "float16":
        return x.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        bits = x.view(np.uint32)
        upper = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        return upper.astype(np.uint32).view(np.float32)
    return x


def as_mlx(x: np.ndarray, dtype: str) -> mx.array:
    """Rounds float64 values to `dtype` by way of float32."""
    return mx.array(rounded(x.astype(np.float32), dtype)).astype(DTYPES[dtype])


def as_float32(x: mx.array) -> np.ndarray:
    return np.array(x.astype(mx.float32))


def raw(x: mx.array) -> np.ndarray:
    """Returns the bits, since numpy has no bfloat16."""
    words = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32}
    return np.array(x.view(words[x.itemsize]))


def write(path: Path, tensors: dict[str, mx.array]) -> None:
    """Writes a safetensors file, sorted by name: MLX's own writer orders by hash."""
    header = {"__metadata__": {"mlx": mx.__version__}}
    data = bytearray()
    for name, tensor in sorted(tensors.items()):
        start = len(data)
        data += raw(tensor).tobytes()
        header[name] = {
            "dtype": FORMAT_NAMES[tensor.dtype],
            "shape": tensor.shape,
            "data_offsets": [start, len(data)],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    print(f"{path.name}: {len(tensors)} tensors, {path.stat().st_size} bytes")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    mx.set_default_device(mx.cpu)
    write(folder / "quantize.safetensors", quantize_file())
    write(folder / "merge.safetensors", merge_file())


if __name__ == "__main__":
    main()
