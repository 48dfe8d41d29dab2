#!/usr/bin/env python3
"""Writes a Hugging Face folder of OPT or Llama, with a byte-level BPE tokenizer, as a GGUF file: by the package `gguf`,
in one of the types that it can round to; with a fourth argument as one of PowerInfer's, without predictors. A second
writer beside writer.rs, for the two models that tests have. Run with gguf 0.19.0 and numpy 2.4.6.

    pip install gguf==0.19.0 numpy
    tools/tests/gguf/models.py FOLDER {F16,Q8_0,Q4_0,Q4_1,Q5_0,Q5_1} FILE.gguf [powerinfer]
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as T, GGUFWriter, quants

NAMES = {
    "embed_tokens": "token_embd", "embed_positions": "position_embd", "norm": "output_norm",
    "final_layer_norm": "output_norm", "lm_head": "output",
}
IN_LAYER = {
    "input_layernorm": "attn_norm", "self_attn_layer_norm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "final_layer_norm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.out_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "fc1": "ffn_up", "mlp.down_proj": "ffn_down",
    "fc2": "ffn_down",
}

folder, kind, out = Path(sys.argv[1]), T[sys.argv[2]], sys.argv[3]
powerinfer = sys.argv[4:] == ["powerinfer"]
config = json.loads((folder / "config.json").read_text())
architecture = config["model_type"]
writer = GGUFWriter(out, architecture)
heads, hidden = config["num_attention_heads"], config["hidden_size"]
writer.add_block_count(config["num_hidden_layers"])
writer.add_embedding_length(hidden)
writer.add_feed_forward_length(config.get("ffn_dim") or config["intermediate_size"])
writer.add_context_length(config["max_position_embeddings"])
writer.add_head_count(heads)
writer.add_head_count_kv(config.get("num_key_value_heads", heads))
if architecture == "llama":
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config.get("head_dim") or hidden // heads)
else:
    writer.add_layer_norm_eps(1e-5)
tokenizer = json.loads((folder / "tokenizer.json").read_text())
added = {token["id"]: token for token in tokenizer["added_tokens"]}
tokens = {id: token for token, id in tokenizer["model"]["vocab"].items()} | {id: t["content"] for id, t in added.items()}
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("gpt-2")
writer.add_token_list([tokens[id] for id in sorted(tokens)])
writer.add_token_types([(3 if added[id]["special"] else 4) if id in added else 1 for id in sorted(tokens)])
writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]])
writer.add_bos_token_id(config["bos_token_id"])
writer.add_eos_token_id(config["eos_token_id"])
writer.add_add_bos_token(True)

file = (folder / "model.safetensors").read_bytes()
length = int.from_bytes(file[:8], "little")
for name, about in json.loads(file[8 : 8 + length]).items():
    if name == "__metadata__" or name == "lm_head.weight" and config["tie_word_embeddings"]:
        continue
    begin, end = about["data_offsets"]
    data = np.frombuffer(file[8 + length + begin : 8 + length + end], {"F16": np.float16, "F32": np.float32}[about["dtype"]])
    data = data.reshape(about["shape"])
    name, ending = re.sub(r"^(model\.)?(decoder\.)?", "", name).rsplit(".", 1)
    layer = re.fullmatch(r"layers\.(\d+)\.(.*)", name)
    name = f"blk.{layer[1]}.{IN_LAYER[layer[2]]}" if layer else NAMES[name]
    if architecture == "llama" and name.endswith(("attn_q", "attn_k")):
        of = heads if name.endswith("q") else config.get("num_key_value_heads", heads)
        data = data.reshape(of, 2, -1, hidden).swapaxes(1, 2).reshape(data.shape)
    if powerinfer and name.endswith("ffn_down"):
        name, data = f"{name}_t", np.ascontiguousarray(data.T)
    if data.ndim == 1:
        writer.add_tensor(f"{name}.{ending}", data.astype(np.float32))
    else:
        writer.add_tensor(f"{name}.{ending}", quants.quantize(data.astype(np.float32), kind), raw_dtype=kind)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
if powerinfer:
    with open(out, "r+b") as file:
        file.write(b"PWRI")
