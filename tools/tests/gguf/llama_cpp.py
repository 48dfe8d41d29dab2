#!/usr/bin/env python3
"""Shows the files that `tools/tests/gguf/writer.rs` makes of the families to llama.cpp, and compares its greedy tokens
with those of transformers: whether the files are what llama.cpp takes them for. Run with xllamacpp 2026.10.11549.

    pip install xllamacpp
    mkdir out && LNP_GGUF_OUT=out cargo test --workspace --test gguf -- --ignored files_for_llama_cpp
    tools/tests/gguf/llama_cpp.py out
"""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

FAMILIES = Path(__file__).parent.parent / "families"


def look(path):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.warmup = 512, 1, False
    params.cpuparams.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if path.stem == "arcee-yarn":
        # this llama.cpp does not read them from the file
        params.yarn_beta_fast, params.yarn_beta_slow = 4.0, 1.0
    server = xllamacpp.Server(params)
    told = json.loads((FAMILIES / path.stem / "reference/reference.json").read_text())
    found = []
    for prompt in told["prompts"]:
        body = dict(prompt=prompt["prompt_ids"], n_predict=len(prompt["greedy_ids"]), temperature=0, n_probs=2,
            cache_prompt=False, return_tokens=True)
        request = urllib.request.Request(server.listening_address + "/completion", json.dumps(body).encode(),
            {"Content-Type": "application/json"})
        tokens = json.loads(urllib.request.urlopen(request).read())["tokens"]
        # it ends at an end of text
        same = tokens == prompt["greedy_ids"][: len(tokens)]
        found.append("same" if same and tokens else f"{tokens} for {prompt['greedy_ids']}")
    print(path.stem, *found)


if sys.argv[1].endswith(".gguf"):
    look(Path(sys.argv[1]))
else:
    # a process each: one that is refused takes the process with it
    for path in sorted(Path(sys.argv[1]).glob("*.gguf")):
        done = subprocess.run([sys.executable, __file__, path], capture_output=True, text=True)
        lines = [line for line in done.stderr.split("\n") if "error" in line.lower()]
        print(done.stdout.strip() or f"{path.stem} refused: {lines[:1]}", flush=True)
