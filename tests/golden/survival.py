"""Makes survival.json: what quantizing leaves of the example's fine-tuning, computed with numpy in float64.

    python survival.py [FILE]

Needs numpy, safetensors and `mlx[cpu]==0.32.2`. The models are made with MLX's own `quantize` and `dequantize`, and with the
reference in keep.py; nothing of `pipeline` is used. A second run gives the same bytes.
"""

import json
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np

from keep import dequantized, dither, keep, seed_of

HERE = Path(__file__).parent
TINY = HERE.parent.parent / "examples" / "tiny"
SCALE = 20.0
GROUP, BITS = 64, 4  # of the base
LARGEST_UPDATE = {4: 0.4, 5: 0.4, 6: 0.15, 8: 0.4}  # of a step of the outcome, root mean square, by bits

# By the name of the node: the type of the fused model, and what it is quantized to, one after the other. A number alone means
# that many bits on the grid of the base, where the update is small enough for that.
NODES = {
    "8bit": ("float16", [(8, 64, "affine")]),
    "6bit": ("float16", [(6, 64, "affine")]),
    "4bit": ("float16", [(4, 64, "affine")]),
    "3bit-32": ("float16", [(3, 32, "affine")]),
    "4bit-bf16": ("bfloat16", [(4, 64, "affine")]),
    "4bit-of-8bit": ("float16", [(8, 64, "affine"), (4, 64, "affine")]),
    "mxfp4": ("float16", [(4, 32, "mxfp4")]),
    "mxfp8": ("float16", [(8, 32, "mxfp8")]),
    "nvfp4": ("float16", [(4, 16, "nvfp4")]),
    "4bit-keep": ("float16", [4]),
    "5bit-keep-bf16": ("bfloat16", [5]),
    "6bit-keep-bf16": ("bfloat16", [6]),
}


def quantized(weight, bits, group_size, mode):
    """Quantizes and returns the weights that come out, and the step at each."""
    parts = mx.quantize(weight, group_size, bits, mode=mode)
    scales = parts[1]
    if mode == "affine":
        out = mx.dequantize(*parts, group_size, bits)
        return out, spread(wide(scales), group_size)
    out = mx.dequantize(parts[0], scales, None, group_size, bits, mode=mode, dtype=weight.dtype)
    exact = wide(mx.dequantize(parts[0], scales, None, group_size, bits, mode=mode, dtype=mx.float32))
    if mode == "nvfp4":
        scales = wide(mx.from_fp8(scales, mx.float32))
    else:
        scales = 2.0 ** (np.array(scales).astype(np.float64) - 127)
    scales = spread(scales, group_size)
    # The distance between floats of that magnitude: e4m3 has three bits of mantissa, e2m1 one.
    lowest, mantissa = (2.0**-6, 3) if mode == "mxfp8" else (1.0, 1)
    magnitude = np.maximum(np.abs(exact) / scales, lowest)
    return out, 2.0 ** (np.floor(np.log2(magnitude)) - mantissa) * scales


def kept(weight, base, bits, name):
    """Rounds on the grid of the base and returns the weights that come out, and the step at each."""
    kind = str(weight.dtype).removeprefix("mlx.core.")
    codes, scales, biases = base
    codes = (np.array(codes)[..., None] >> (np.arange(8, dtype=np.uint32) * 4) & 15).reshape(weight.shape)
    scales, biases, updated = (np.array(part.astype(mx.float32)) for part in (scales, biases, weight))
    step = spread(np.abs(scales.astype(np.float64)), GROUP) / 2 ** (bits - BITS)
    delta = updated.astype(np.float64) - dequantized(codes, scales, biases, GROUP, kind)
    if (delta**2).sum() >= LARGEST_UPDATE[bits] ** 2 * (step**2).sum():
        return quantized(weight, bits, GROUP, "affine")
    numbers = dither(seed_of(name), *weight.shape)
    made, steps = keep(codes, scales, biases, updated, kind, GROUP, BITS, bits, numbers)
    return mx.array(dequantized(made, steps, biases, GROUP, kind)), np.abs(spread(steps.astype(np.float64), GROUP))


def spread(scales, group_size):
    return np.repeat(scales, group_size, axis=-1)


def wide(array):
    return np.array(array.astype(mx.float32)).astype(np.float64)


def merged(base, a, b):
    """Adds the update: a float32 sum over k ascending, a multiply then an add, rounded to the weight's type."""
    a, b = (np.array(factor) for factor in (a, b))
    delta = np.zeros(base.shape, np.float32)
    for k in range(a.shape[1]):
        delta += np.outer(np.float32(SCALE) * b[k], a[:, k])
    return base + mx.array(delta).astype(base.dtype)


def sums(base, fused, out, step):
    base, fused, out = wide(base), wide(fused), wide(out)
    delta, moved = fused - base, out - base
    changed = delta != 0
    return {
        "weights": delta.size,
        "changed": int(changed.sum()),
        "reverted": int((changed & (out == base)).sum()),
        "moved·delta": float((moved * delta).sum()),
        "moved²": float((moved**2).sum()),
        "delta²": float((delta**2).sum()),
        "noise²": float(((moved - delta) ** 2).sum()),
        "step²": float((np.broadcast_to(step, delta.shape) ** 2).sum()),
    }


def figures(sums):
    return {
        "cosine": sums["moved·delta"] / (sums["moved²"] * sums["delta²"]) ** 0.5,
        "delta_per_step": (sums["delta²"] / sums["step²"]) ** 0.5,
        "noise_to_signal": (sums["noise²"] / sums["delta²"]) ** 0.5,
        "reverted": sums["reverted"] / sums["changed"],
        "survival": sums["moved·delta"] / sums["delta²"],
        "weights": sums["weights"],
    }


def survival(model, adapter, dtype, steps):
    """Returns the figures of each weight that the adapter changes, and of all together."""
    tensors = {}
    for name in sorted(adapter):
        if not name.endswith(".lora_a"):
            continue
        module = name.removesuffix(".lora_a")
        codes, scales, biases = (model[f"{module}.{part}"] for part in ("weight", "scales", "biases"))
        grid = codes, scales.astype(dtype), biases.astype(dtype)
        base = mx.dequantize(*grid, GROUP, BITS)
        fused = merged(base, adapter[name], adapter[f"{module}.lora_b"])
        out = fused
        for how in steps:
            out, step = kept(out, grid, how, f"{module}.weight") if isinstance(how, int) else quantized(out, *how)
        tensors[f"{module}.weight"] = sums(base, fused, out, step)
    overall = {key: sum(tensor[key] for tensor in tensors.values()) for key in next(iter(tensors.values()))}
    return {"overall": figures(overall), "tensors": {name: figures(found) for name, found in tensors.items()}}


def main():
    mx.set_default_device(mx.cpu)
    model = mx.load(str(TINY / "base-4bit" / "model.safetensors"))
    adapter = mx.load(str(TINY / "adapter" / "adapters.safetensors"))
    found = {
        name: survival(model, adapter, getattr(mx, dtype), steps) for name, (dtype, steps) in NODES.items()
    }
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "survival.json"
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
