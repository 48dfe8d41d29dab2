#!/usr/bin/env python3
"""Writes a Hugging Face folder as a GGUF file that llama.cpp runs, for benches/sidebyside: the same weights for both
programs. One tensor in memory at a time, of a 7B model too.

    to_gguf.py MODEL_FOLDER OUTPUT.gguf [--type f16|q8_0|q4_0|f32]

Needs the PyPI packages gguf and numpy. What each architecture becomes:

    arcee           arcee: the same net (relu squared, two parts); the same tokens
    llama, mistral  llama: llama.cpp computes SiLU whatever the activation: bytes and time as of the same net, the
                    text is of another one
    opt             arcee of OPT's dimensions: no positions, no biases, RMS norms; bytes and time comparable, the text is of
                    another net. llama.cpp has no OPT

There is no vocabulary in it, only its size: ids go in, ids come out. Rows of q and k are put in llama.cpp's order, as its
own converter does: pairs that are rotated together stand side by side there, half a head apart in the folder.
"""

import argparse
import json
import sys
from pathlib import Path

import gguf
import numpy as np

KINDS = gguf.GGMLQuantizationType
TYPES = {"f16": KINDS.F16, "q8_0": KINDS.Q8_0, "q4_0": KINDS.Q4_0, "f32": KINDS.F32}
FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7}
BLOCKS = ("q8_0", "q4_0")
# Rows that are converted at once, by their numbers.
PIECE = 1 << 24

LLAMA = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
OPT = {
    "attn_norm": "self_attn_layer_norm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.out_proj", "ffn_norm": "final_layer_norm",
    "ffn_up": "fc1", "ffn_down": "fc2",
}
OUTER = {"llama": ("model.embed_tokens", "model.norm", "model.layers"),
         "opt": ("model.decoder.embed_tokens", "model.decoder.final_layer_norm", "model.decoder.layers")}
# Fields of a config that change the net in ways that are not written here.
MUST_BE = {"attention_bias": (False, None), "mlp_bias": (False, None), "_remove_final_layer_norm": (False, None),
           "do_layer_norm_before": (True, None)}


def fail(what):
    sys.exit(f"to_gguf: {what}")


class Tensors:
    """The tensors of a folder's safetensors files, mapped, not read."""

    def __init__(self, folder):
        self.places = {}
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            fail(f"{folder}: no *.safetensors there")
        for path in files:
            with open(path, "rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size))
            for name, told in header.items():
                if name != "__metadata__":
                    begin, end = told["data_offsets"]
                    self.places[name] = (path, 8 + size + begin, end - begin, told["dtype"], tuple(told["shape"]))

    def find(self, name):
        """A name as stored: some folders leave out the leading `model.`."""
        for known in (name, name.removeprefix("model.")):
            if known in self.places:
                return known
        return None

    def shape(self, name):
        return self.places[name][4]

    def mapped(self, name):
        path, offset, length, dtype, shape = self.places[name]
        kinds = {"F16": np.float16, "F32": np.float32, "BF16": np.uint16}
        if dtype not in kinds:
            fail(f"{name}: is {dtype}; F16, BF16 or F32 is needed")
        data = np.memmap(path, dtype=kinds[dtype], mode="r", offset=offset, shape=shape)
        return data, dtype


def as_f32(piece, dtype):
    if dtype == "BF16":
        return (piece.astype(np.uint32) << 16).view(np.float32)
    return piece.astype(np.float32)


def rotated(heads, rows):
    """Which row of q or k stands where in llama.cpp: as `permute` of its converter."""
    return np.arange(rows).reshape(heads, 2, rows // heads // 2).swapaxes(1, 2).reshape(rows)


def pieces(tensors, name, kind, order):
    """A tensor's rows in the type asked for, as many at a time as fit in a piece."""
    data, dtype = tensors.mapped(name)
    step = max(1, PIECE // max(1, data.shape[-1])) if data.ndim > 1 else len(data)
    for begin in range(0, len(data), step):
        rows = data[begin:begin + step] if order is None else data[order[begin:begin + step]]
        if kind == "f16" and dtype == "F16":
            yield np.ascontiguousarray(rows)
        elif kind == "f16":
            yield as_f32(rows, dtype).astype(np.float16)
        elif kind == "f32":
            yield as_f32(rows, dtype)
        else:
            yield gguf.quants.quantize(as_f32(rows, dtype), TYPES[kind])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--type", choices=TYPES, default="f16")
    args = parser.parse_args()
    try:
        config = json.loads((args.folder / "config.json").read_text())
    except OSError as error:
        fail(error)
    family = config.get("model_type")
    if family not in ("arcee", "llama", "mistral", "opt"):
        fail(f"model_type {family}: arcee, llama, mistral and opt can be written")
    for field, values in MUST_BE.items():
        if config.get(field) not in values:
            fail(f"{field} {config[field]}: cannot be written")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        fail("scaled rotary positions cannot be written")
    hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
    if config.get("word_embed_proj_dim", hidden) != hidden:
        fail("word_embed_proj_dim differs from hidden_size: cannot be written")
    kv_heads = config.get("num_key_value_heads") or heads
    head = config.get("head_dim") or hidden // heads
    neurons = config["ffn_dim"] if family == "opt" else config["intermediate_size"]
    tensors = Tensors(args.folder)
    embeddings, norm, prefix = OUTER["opt" if family == "opt" else "llama"]

    # (name in GGUF, name in the folder, order of its rows)
    plan = [("token_embd", embeddings, None), ("output_norm", norm, None)]
    if not config.get("tie_word_embeddings", family == "opt"):
        plan.append(("output", "lm_head", None))
    for layer in range(layers):
        for ours, theirs in (OPT if family == "opt" else LLAMA).items():
            if ours == "ffn_gate" and family == "arcee":
                continue
            of = {"attn_q": heads, "attn_k": kv_heads}.get(ours)
            order = rotated(of, of * head) if of else None
            plan.append((f"blk.{layer}.{ours}", f"{prefix}.{layer}.{theirs}", order))
    found = []
    for ours, theirs, order in plan:
        name = tensors.find(theirs + ".weight")
        if name is None:
            fail(f"{args.folder}: has no {theirs}.weight")
        shape = tensors.shape(name)
        kind = args.type if len(shape) > 1 else "f32"
        if kind in BLOCKS and shape[-1] % 32:
            fail(f"{name}: rows of {shape[-1]} numbers; {kind} takes multiples of 32")
        if order is not None and shape[0] != len(order):
            fail(f"{name}: {shape[0]} rows, where the heads make {len(order)}")
        found.append((ours + ".weight", name, kind, order, shape))

    architecture = "llama" if family in ("llama", "mistral") else "arcee"
    unfinished = args.output.with_suffix(".part")
    writer = gguf.GGUFWriter(unfinished, architecture)
    writer.add_name(args.folder.resolve().name)
    writer.add_file_type(FILE_TYPES[args.type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(layers)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(neurons)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-5))
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    for ours, _, kind, _, shape in found:
        bytes_of = gguf.quants.quant_shape_to_byte_shape(shape, TYPES[kind]) if kind in BLOCKS else None
        if bytes_of:
            writer.add_tensor_info(ours, bytes_of, np.dtype(np.uint8), int(np.prod(bytes_of)), TYPES[kind])
        else:
            dtype = np.dtype(np.float16 if kind == "f16" else np.float32)
            writer.add_tensor_info(ours, shape, dtype, int(np.prod(shape)) * dtype.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    # The writer takes a tensor whole; its file takes pieces.
    out = writer.fout[0]
    writer.write_padding(out, out.tell())
    for _, name, kind, order, _ in found:
        length = 0
        for piece in pieces(tensors, name, kind, order):
            piece.tofile(out)
            length += piece.nbytes
        writer.write_padding(out, length)
    writer.close()
    unfinished.rename(args.output)


main()
