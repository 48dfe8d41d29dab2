#!/usr/bin/env python3
"""Makes blocks.gguf beside this file: blocks of every type that `lnp` reads, and what the package `gguf` makes of
them. Made with gguf 0.19.0 and numpy 2.4.6.

    pip install gguf==0.19.0 numpy
    tools/tests/gguf/blocks.py

For each type a tensor `q4_k` of two rows, and `q4_k.values`, the same in F32. The blocks are random bytes: those
whose scales are no numbers, or so large that f32 is at its end, are drawn again. The metadata have a value of each
type.
"""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T, GGUFValueType as V, GGUFWriter, quants

ROWS, COLUMNS = 2, 256
TYPES = [T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K, T.IQ4_NL]


def values(raw, kind):
    return quants.dequantize(raw, kind) if kind != T.F16 else raw.view(np.float16).astype(np.float32)


def block(random, kind, count):
    while True:
        raw = random.integers(0, 256, count, dtype=np.uint8).reshape(1, count)
        with np.errstate(all="ignore"):
            found = values(raw, kind)
        if np.isfinite(found).all() and np.abs(found).max() < 1e6:
            return raw


writer = GGUFWriter(Path(__file__).parent / "blocks.gguf", "none")
for kind, value in [
    (V.UINT8, 200), (V.INT8, -100), (V.UINT16, 60000), (V.INT16, -30000), (V.UINT32, 1 << 31), (V.INT32, -(1 << 30)),
    (V.UINT64, 1 << 60), (V.INT64, -(1 << 60)), (V.FLOAT32, 1e-5), (V.FLOAT64, 1e-5), (V.BOOL, True), (V.STRING, "a ▁ \0"),
]:
    writer.add_key_value(f"one.{kind.name.lower()}", value, kind)
writer.add_array("many.texts", ["", "Ġ", "two words"])
writer.add_array("many.numbers", [1, -2, 3])
writer.add_array("many.floats", [0.5, -1e30])
random = np.random.default_rng(20)
for kind in TYPES:
    elements, size = GGML_QUANT_SIZES[kind]
    rows = [np.concatenate([block(random, kind, size) for _ in range(COLUMNS // elements)], 1) for _ in range(ROWS)]
    raw = np.concatenate(rows)
    name = kind.name.lower()
    writer.add_tensor(name, raw, raw_dtype=kind)
    writer.add_tensor(f"{name}.values", np.ascontiguousarray(values(raw, kind), np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
