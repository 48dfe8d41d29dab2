#!/usr/bin/env python3
"""Writes bits.json beside this file: blocks of 32 codes of few bits, and the numbers that they stand for.

Run:  python3 kernels/tests/vectors/make_bits.py          (the standard library alone)

Written from the definition, not from our code: a block is an f16 scale s, then 32 codes of K bits as one
little-endian number, the first code in its lowest bits; a code c stands for (2c + 1 - 2^K) s.

  {"blocks": [{"name": "...", "numbers": "bits:K", "bytes": "hex", "values_bits": [32 f32, as unsigned integers]}]}
"""
import json
import pathlib
import random
import struct


def as_bits(value):
    assert struct.unpack("<f", struct.pack("<f", value))[0] == value
    return struct.unpack("<I", struct.pack("<f", value))[0]


def block(name, bits, scale, codes):
    assert len(codes) == 32 and all(0 <= code < 1 << bits for code in codes), name
    half = struct.pack("<e", scale)
    number = sum(code << (bits * at) for at, code in enumerate(codes))
    rounded = struct.unpack("<e", half)[0]
    return {
        "name": name,
        "numbers": f"bits:{bits}",
        "bytes": (half + number.to_bytes(4 * bits, "little")).hex(),
        # products of 11 bits and 8: exact in 24
        "values_bits": [as_bits((2 * code + 1 - (1 << bits)) * rounded) for code in codes],
    }


def blocks():
    chance = random.Random(32)
    for bits in 1, 2, 4, 8:
        top = (1 << bits) - 1
        count = list(range(32))
        yield block("lowest codes", bits, 1.0, [0] * 32)
        yield block("highest codes", bits, 0.1, [top] * 32)
        yield block("every code in turn", bits, 1.0, [at & top for at in count])
        yield block("every code from the top", bits, -0.75, [top - (at * 37 & top) for at in count])
        yield block("one code apart", bits, 2.0, [top if at == 17 else 0 for at in count])
        yield block("the first code alone", bits, 3.14159, [1] + [0] * 31)
        yield block("the last code alone", bits, 3.14159, [0] * 31 + [1])
        yield block("scale is the least of f16", bits, 2.0**-24, [at * at & top for at in count])
        yield block("scale is near the most of f16", bits, 65504.0, [at * 5 & top for at in count])
        yield block("scale is zero", bits, 0.0, [at & top for at in count])
        for number in range(4):
            codes = [chance.getrandbits(bits) for _ in count]
            yield block(f"random {number}", bits, chance.uniform(-1, 1) / 16**number, codes)


def main():
    entries = [json.dumps(entry, separators=(",", ":")) for entry in blocks()]
    text = '{"blocks":[\n' + ",\n".join(entries) + "\n]}\n"
    pathlib.Path(__file__).with_name("bits.json").write_text(text)


if __name__ == "__main__":
    main()
