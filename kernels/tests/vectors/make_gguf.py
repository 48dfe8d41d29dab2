#!/usr/bin/env python3
"""Writes gguf.json beside this file: blocks of 32 weights as the `gguf` package quantises and dequantises them.

Run:  pip install gguf==0.19.0 numpy==2.4.6 && python3 kernels/tests/vectors/make_gguf.py
`gguf_version` in the file says what it was made with; gguf.quants is bit-equal to ggml's reference in C.
(This script is not named gguf.py, which would hide the package.)

What is in it, every number of 32 bits as an unsigned integer that holds the bits:
  {"gguf_version": "...",
   "blocks": [{"name": "...", "x_bits": [32 f32],
               "q8_0": {"bytes": "hex", "values_bits": [32 f32, dequantised from the bytes]},
               "q4_0": {the same}, "bf16": {the same}}]}

Left out is what the reference leaves open: weights so small that 1 / d is infinite, and a block of zeros that
begins with -0.0 (gguf writes the scale +0.0 for q4_0, ggml's C -0.0).
"""
import importlib.metadata
import json
import pathlib

import gguf
import numpy as np

TYPES = {"q8_0": gguf.GGMLQuantizationType.Q8_0, "q4_0": gguf.GGMLQuantizationType.Q4_0,
         "bf16": gguf.GGMLQuantizationType.BF16}


def blocks():
    """(name, 32 values) of everything that a quantiser can trip over."""
    random = np.random.Generator(np.random.PCG64(32))
    count = np.arange(32, dtype=np.float32)

    def normal(scale=1.0):
        return random.standard_normal(32) * scale

    for number in range(6):
        yield f"normal {number}", normal(0.02 * 4**number)
    yield "uniform", random.uniform(-1, 1, 32)
    yield "zeros", np.zeros(32)
    yield "one weight, the rest zero", np.where(count == 17, -0.37, 0)
    yield "constant", np.full(32, 0.1)
    yield "constant, negative", np.full(32, -3.3)
    yield "one large outlier", np.where(count == 5, 300, normal(0.01))
    yield "one large negative outlier", np.where(count == 30, -300, normal(0.01))
    # d is exactly 1: halves are ties, rounded away from zero by q8_0
    yield "ties of q8_0", np.where(count == 31, 127, (count - 15) + 0.5)
    # d is exactly -1 (the largest is positive) and 1: halves are ties of q4_0
    yield "ties of q4_0, positive max", np.where(count == 0, 8, (count % 16) / 2 - 4.25 + 0.75)
    yield "ties of q4_0, negative max", np.where(count == 0, -8, (count % 16) / 2 - 3.5)
    # weights between two steps, where 1 / d and the product, themselves rounded, decide otherwise than exact numbers
    yield "between the steps of q8_0", between_steps(127, np.arange(31) * 4 - 60, gguf.quants.np_roundf)
    yield "between the steps of q4_0", between_steps(
        -8, np.arange(31) % 14 - 7, lambda number: np.trunc(number + number.dtype.type(8.5)))
    # both ends are as far from zero: the first decides the sign of d, the other is clipped
    yield "both ends, negative first", np.where(count % 2 == 0, -1, 1) * np.where(count < 8, 2, count / 32)
    yield "both ends, positive first", np.where(count % 2 == 0, 1, -1) * np.where(count < 8, 2, count / 32)
    yield "zeros of both signs", np.where(count % 3 == 0, 0.0, np.where(count % 3 == 1, -0.0, normal()))
    yield "scale is subnormal in f16", normal(1e-5)
    yield "scale is the least of f16 or zero", normal(2e-6)
    yield "scale is zero in f16", normal(1e-30)
    yield "scale is near the most of f16", np.clip(normal(2e5), -520_000, 520_000)
    # the bits below the cut are exactly half of bf16's last place: to even, up and down
    bits = (np.uint32(0x3F80_0000) + (np.arange(32, dtype=np.uint32) << 15)).astype(np.uint32)
    yield "ties of bf16", np.where(count % 4 == 0, -1, 1).astype(np.float32) * bits.view(np.float32)
    yield "carries and neighbours of bf16 ties", np.array(
        [0x3FFF_FFFF, 0x3FFF_7FFF, 0x3FFF_8001, 0x3F80_7FFF, 0x3F80_8001, 0xBFFF_8000, 0x0000_8000, 0x0001_8000] * 4,
        dtype=np.uint32).view(np.float32)


def between_steps(last, steps, rounded):
    """`steps` and a half times a scale d = largest / last, where `rounded` sees the roundings to f32 most often."""
    def weights(largest):
        d = np.float32(largest) / np.float32(last)
        x = np.append((steps.astype(np.float32) + np.float32(0.5)) * d, np.float32(largest))
        exact = rounded(x.astype(np.float64) / np.float64(d))
        return x, int((rounded(x * (1 / d)) != exact).sum() + (rounded(x / d) != rounded(x * (1 / d))).sum())

    return max((weights(0.5 + number / 4096) for number in range(4096)), key=lambda found: found[1])[0]


def main():
    entries = []
    for name, values in blocks():
        x = np.asarray(values).astype(np.float32)
        assert x.shape == (32,) and np.isfinite(x).all(), name
        entry = {"name": name, "x_bits": x.view(np.uint32).tolist()}
        for kind, code in TYPES.items():
            packed = gguf.quants.quantize(x, code)
            restored = gguf.quants.dequantize(packed, code).astype(np.float32)
            assert np.isfinite(restored).all(), (name, kind)
            entry[kind] = {"bytes": packed.tobytes().hex(), "values_bits": restored.view(np.uint32).tolist()}
        entries.append(json.dumps(entry, separators=(",", ":")))
    version = importlib.metadata.version("gguf")
    text = f'{{"gguf_version":"{version}","blocks":[\n' + ",\n".join(entries) + "\n]}\n"
    pathlib.Path(__file__).with_name("gguf.json").write_text(text)


if __name__ == "__main__":
    main()
