"""Makes the golden file of the floating-point modes, and of affine weights that are not finite.

    python modes.py [FOLDER]

Needs numpy and `mlx[cpu]==0.32.2`. Writes `modes.safetensors` beside this script, or into FOLDER:

    w/KIND/DTYPE                             the weights
    q/KIND/DTYPE/MODE/{weight,scales}        MLX's packed words and its uint8 scales
    dq/KIND/DTYPE/MODE/TO                    those, dequantized to the type TO
    q/KIND/DTYPE/affine-BITS/{weight,scales,biases}, dq/KIND/DTYPE/affine-BITS
                                             of the kinds that are not finite, groups of 64

Bytes of a NaN depend on the processor: compare a NaN with a NaN. A second run gives the same bytes.
"""

import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from kernels import BLOCK, DTYPES, LARGEST, SMALLEST, as_mlx, raw, write

MODES = {"mxfp4": 32, "mxfp8": 32, "nvfp4": 16}  # with the group size
AFFINE_BITS = (4, 8)
AFFINE_GROUP = 64
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
NAN, INF = float("nan"), float("inf")


def fp8_values() -> np.ndarray:
    """Returns the 127 values of e4m3 from zero to 448."""
    return np.array(mx.from_fp8(mx.arange(127).astype(mx.uint8), mx.float32), np.float64)


def ties(values: np.ndarray, count: int) -> np.ndarray:
    """Returns `count` values half way between two neighbours, of both signs."""
    middle = (values[1:] + values[:-1]) / 2
    return np.resize(np.stack([middle, -middle], 1).ravel(), count)


def finite_weights(dtype: str) -> np.ndarray:
    """Returns [8, 256] values for `dtype`, every half row of another kind."""
    rng = np.random.default_rng(22)
    signs = rng.choice([-1.0, 1.0], BLOCK)

    normal = rng.normal(0, 0.05, BLOCK)

    zeros = np.zeros(BLOCK)
    zeros[1::3] = -0.0

    constant = np.repeat([0.3, -0.3, 6.0, -7.0, 1e-6, 448.0, 2688.0, -1.5], 16)

    # From the smallest value up: the scale of a group is too small for `dtype`, or for its code.
    subnormal = rng.integers(-1000, 1001, BLOCK) * SMALLEST[dtype]
    subnormal[:64] = np.repeat([1, 2, 3, 5], 16) * SMALLEST[dtype] * signs[:64]
    tiny = rng.uniform(-1, 1, BLOCK) * SMALLEST[dtype] * np.repeat(2.0 ** rng.integers(2, 30, 8), 16)

    large = rng.uniform(0.5, 1.0, BLOCK) * LARGEST[dtype] * signs
    large[[5, 69]] = LARGEST[dtype]

    # Groups of every size up to the largest: nvfp4's scale ends at 448, and far beyond it all values become zero.
    beyond = rng.uniform(-1, 1, BLOCK) * np.minimum(np.repeat(4.0 ** np.arange(5, 13), 16), 65504)

    mixed = signs * 10.0 ** rng.uniform(-6, 2, BLOCK)

    # Scales that are one, or a power of two, and values half way between two codes.
    fp4_ties = ties(FP4, BLOCK)
    fp4_ties[0::16] = 6
    fp4_ties[64:] *= 2.0**-5
    fp8_ties = ties(fp8_values()[40:], BLOCK)
    fp8_ties[0::32] = 448
    fp8_small_ties = ties(fp8_values()[:24], BLOCK)
    fp8_small_ties[0::32] = 448

    # Just beside the ties: a distance is rounded to `dtype` before the nearest is looked for.
    step = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24}[dtype]
    beside = ties(FP4, BLOCK) * (1 + step * np.tile([-1, 1], BLOCK // 2))
    beside[0::16] = 6

    # The largest of a group at, just below and just above six and 448 times a power of two.
    edges = rng.uniform(-0.5, 0.5, BLOCK)
    edges[0::32] = np.array([6, 6 * (1 + 2 * step), 448, 448 * (1 + 2 * step)])
    edges[16::32] = np.array([6 * (1 - 2 * step), 12, 448 * (1 - 2 * step), 2688])

    lonely = np.zeros(BLOCK)
    lonely[[40, 90]] = [0.01, -0.02]

    outlier = rng.normal(0, 1e-3, BLOCK)
    outlier[3::16] = 8

    ramp = np.arange(-64, 64) / 16

    kinds = [normal, zeros, constant, subnormal, tiny, large, beyond, mixed]
    kinds += [fp4_ties, fp8_ties, fp8_small_ties, beside, edges, lonely, outlier, ramp]
    return np.concatenate(kinds).reshape(8, 2 * BLOCK)


def weights(dtype: str) -> dict[str, np.ndarray]:
    """Returns the weights of every kind; those that are not finite are so in some of their groups."""
    rng = np.random.default_rng(23)
    strange = rng.normal(0, 1, (1, BLOCK))
    nan, inf, negative_inf, only_nan = (strange.copy() for _ in range(4))
    nan[0, [0, 70, 71]] = NAN
    inf[0, [3, 100]], inf[0, 101] = INF, NAN
    negative_inf[0, [40, 90]], negative_inf[0, 91] = -INF, INF
    only_nan[0, :64], only_nan[0, 96:] = NAN, -INF
    return {
        "finite": finite_weights(dtype),
        "stack": rng.normal(0, 0.05, (2, 2, 32)),
        "nan": nan,
        "inf": inf,
        "negative-inf": negative_inf,
        "only-nan": only_nan,
    }


def mode_tensors(w: mx.array, case: str) -> dict[str, mx.array]:
    """Quantizes in every mode, and dequantizes to every type."""
    tensors = {}
    for mode, group_size in MODES.items():
        words, scales = mx.quantize(w, group_size, mode=mode)
        tensors[f"q/{case}/{mode}/weight"] = words
        tensors[f"q/{case}/{mode}/scales"] = scales
        for name, dtype in DTYPES.items():
            dense = mx.dequantize(words, scales, None, group_size, mode=mode, dtype=dtype)
            tensors[f"dq/{case}/{mode}/{name}"] = dense
        default = mx.dequantize(words, scales, None, group_size, mode=mode)
        assert default.dtype == mx.bfloat16, "the default type changed"
        assert (raw(default) == raw(tensors[f"dq/{case}/{mode}/bfloat16"])).all()
    return tensors


def affine_tensors(w: mx.array, case: str) -> dict[str, mx.array]:
    """Quantizes and dequantizes with a scale and a bias."""
    tensors = {}
    for bits in AFFINE_BITS:
        words, scales, biases = mx.quantize(w, AFFINE_GROUP, bits)
        tensors[f"q/{case}/affine-{bits}/weight"] = words
        tensors[f"q/{case}/affine-{bits}/scales"] = scales
        tensors[f"q/{case}/affine-{bits}/biases"] = biases
        dense = mx.dequantize(words, scales, biases, AFFINE_GROUP, bits)
        tensors[f"dq/{case}/affine-{bits}"] = dense
    return tensors


def modes_file() -> dict[str, mx.array]:
    tensors = {}
    for dtype in DTYPES:
        for kind, values in weights(dtype).items():
            w = as_mlx(values, dtype)
            case = f"{kind}/{dtype}"
            tensors |= {f"w/{case}": w} | mode_tensors(w, case)
            if not np.isfinite(values).all():
                tensors |= affine_tensors(w, case)
    return tensors


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    mx.set_default_device(mx.cpu)
    write(folder / "modes.safetensors", modes_file())


if __name__ == "__main__":
    main()
