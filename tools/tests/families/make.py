#!/usr/bin/env python3
"""Makes the folders beside this file: tiny random models, one of each family and variant, with what Hugging Face
transformers computes for them in f32. Made with torch 2.15.0 and transformers 5.24.0; `versions` in each
reference.json says so.

    pip install torch==2.15.0 transformers==5.24.0
    tools/tests/families/make.py [NAME...]

Each folder is a model folder as `save_pretrained` writes it, in bf16 but for a few; families whose code is not part
of transformers get the config.json of their own repositories, and are computed by the class that they vary, changed
where they change it. `reference/reference.json` has prompts and what greedy decoding makes of them: a short one, and
one of more than 256 tokens that ends where the context does. `reference/reference.safetensors` has `logits.{i}` f32
after the last token of the prompt, and `active.{i}` u8 [layers, neurons/8] there, where the activation has zeros.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
import transformers as tf
from safetensors.torch import save_file

HERE = Path(__file__).parent
HIDDEN, NEURONS, VOCAB, CONTEXT, LAYERS, GREEDY = 32, 48, 64, 320, 2, 12
MARGIN_MIN = 2e-3
SIZES = dict(
    hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=4, vocab_size=VOCAB, bos_token_id=1,
    eos_token_id=2, pad_token_id=None, max_position_embeddings=CONTEXT,
)
LLAMA = dict(SIZES, intermediate_size=NEURONS)


def rope(kind="default", theta=10000.0, **more):
    return dict(rope_type=kind, rope_theta=theta, **more)


class Fatrelu(torch.nn.Module):
    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def forward(self, x):
        return torch.where(x > self.threshold, x, 0.0)


def fatrelu(threshold):
    def change(model):
        for layer in model.model.layers:
            layer.mlp.act_fn = Fatrelu(threshold)
    return change


def drelu(model):
    for layer in model.model.layers:
        mlp = layer.mlp
        mlp.forward = lambda x, m=mlp: m.down_proj(torch.relu(m.gate_proj(x)) * torch.relu(m.up_proj(x)))


def older(config):
    """The rope fields as they were before transformers 5."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else dict(rope, type=rope.pop("rope_type"))
    config["torch_dtype"] = config.pop("dtype")
    return config


def remote(**fields):
    """A config.json as a repository with code of its own has it."""
    return lambda config: dict(older(config), **fields)


def model(kind, config=None, change=None, threshold=0.0, active=None, topk=None, rewrite=None, dtype=torch.bfloat16, **fields):
    """`active`: the modules of a layer whose outputs are all above the threshold where a neuron is active. `topk`: the
    share that each layer leaves out instead; 0 for none."""
    base = config if config is not None else LLAMA
    fields = {k: v for k, v in dict(base, **fields).items() if v != "absent"}
    return dict(
        kind=kind, fields=fields, change=change, threshold=threshold, active=active, topk=topk, rewrite=rewrite, dtype=dtype)


GATE, UP, FC1, FALCON = ["mlp.gate_proj"], ["mlp.up_proj"], ["fc1"], ["mlp.dense_h_to_4h"]
OPT = dict(SIZES, ffn_dim=NEURONS, bos_token_id=2, pad_token_id=1)
SPARSE = dict(hidden_act="relu", active=GATE)
TOPK = [0.8, 0.6, 0.0, 0.0, 0.9]
MINICPM = dict(scale_emb=12, scale_depth=1.4, dim_model_base=16)

MODELS = {
    "opt": model("OPT", OPT, active=FC1, dtype=torch.float16),
    "opt-350m": model("OPT", OPT, active=FC1, do_layer_norm_before=False, word_embed_proj_dim=16),
    "opt-no-bias": model("OPT", OPT, active=FC1, enable_bias=False, _remove_final_layer_norm=True, tie_word_embeddings=False),
    "llama-biases": model("Llama", **SPARSE, num_key_value_heads=2, attention_bias=True, mlp_bias=True, dtype=torch.float32),
    "llama-linear": model("Llama", head_dim=16, tie_word_embeddings=True, rope_parameters=rope("linear", factor=4.0), rewrite=older),
    "llama-dynamic": model("Llama", **SPARSE, rope_parameters=rope("dynamic", factor=2.0)),
    "llama-3": model("Llama", num_key_value_heads=1, head_dim=32, eos_token_id=[2, 3], rope_parameters=rope(
        "llama3", 10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)),
    "smollm2": model("Llama", hidden_size=96, num_attention_heads=3, num_key_value_heads=1, tie_word_embeddings=True,
        rms_norm_eps=1e-5, rope_parameters=rope(theta=100000.0)),
    "mobillama": model("Llama", num_key_value_heads=2, rms_norm_eps=1e-5, rewrite=remote(
        architectures=["MobiLlamaForCausalLM"], auto_map={"AutoModelForCausalLM": "modeling_mobillama.MobiLlamaForCausalLM"})),
    "mistral": model("Mistral", num_key_value_heads=2, sliding_window=24),
    "qwen2": model("Qwen2", num_key_value_heads=2, use_sliding_window=True, sliding_window=40, max_window_layers=1),
    "qwen3": model("Qwen3", num_key_value_heads=2, head_dim=16, tie_word_embeddings=True),
    "granite": model("Granite", num_key_value_heads=2, embedding_multiplier=12.0, residual_multiplier=0.22,
        attention_multiplier=0.25, logits_scaling=4.0),
    "prosparse": model("Llama", change=fatrelu(0.25), threshold=0.25, active=GATE, rewrite=remote(
        model_type="sparsellama", architectures=["SparseLlamaForCausalLM"], hidden_act="fatrelu", hidden_act_param=0.25)),
    "minicpm-s": model("Granite", num_key_value_heads=2, tie_word_embeddings=True, embedding_multiplier=12.0,
        residual_multiplier=1.4 / LAYERS**0.5, attention_multiplier=8**-0.5, logits_scaling=HIDDEN / 16,
        change=fatrelu(0.125), threshold=0.125, active=GATE, rewrite=remote(model_type="minicpm",
        architectures=["MiniCPMForCausalLM"], hidden_act="fatrelu", hidden_act_param=0.125, **MINICPM)),
    "sparselm": model("Llama", **SPARSE, tie_word_embeddings=True, rope_parameters=rope(theta=100000.0), rewrite=remote(
        model_type="llama_sparse_relu", hidden_act="silu", sparsity_gated_mlp=True)),
    "bamboo": model("Mistral", num_key_value_heads=2, sliding_window=40, change=drelu, active=GATE + UP, rewrite=remote(
        model_type="bamboo", architectures=["BambooForCausalLM"], hidden_act="relu")),
    "phi": model("Phi", num_attention_heads=2, partial_rotary_factor=0.25),
    "phi-relu": model("Phi", num_attention_heads=2, hidden_act="relu", active=["mlp.fc1"]),
    "nemotron": model("Nemotron", num_key_value_heads=2, head_dim=8, active=UP),
    "arcee": model("Arcee", num_key_value_heads=2, active=UP),
    "arcee-yarn": model("Arcee", num_key_value_heads=2, head_dim=32, active=UP, rewrite=older, rope_parameters=rope(
        "yarn", factor=20.0, original_max_position_embeddings=64, mscale=1.0, beta_fast=4.0, beta_slow=1.0)),
    "falcon": model("Falcon", dict(SIZES, ffn_hidden_size=NEURONS), num_kv_heads=4),
    "falcon-relu": model("Falcon", dict(SIZES, ffn_hidden_size=NEURONS), new_decoder_architecture=True, num_kv_heads=2,
        bias=True, activation="relu", active=FALCON, tie_word_embeddings=False),
    "falcon-11b": model("Falcon", SIZES, new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1),
    "falcon-serial": model("Falcon", dict(SIZES, ffn_hidden_size=NEURONS), multi_query=False, parallel_attn=False, bias=True),
    "gemma": model("Gemma", num_key_value_heads=1, head_dim=16),
    "gemma2": model("Gemma2", num_key_value_heads=2, head_dim=16, sliding_window=24, query_pre_attn_scalar=12,
        attn_logit_softcapping=2.0, final_logit_softcapping=3.0),
    "gemma3": model("Gemma3", num_hidden_layers=3, num_key_value_heads=2, head_dim=16, sliding_window=24,
        query_pre_attn_scalar=12, sliding_window_pattern=3, rope_parameters=dict(
        full_attention=rope("linear", 1000000.0, factor=8.0), sliding_attention=rope())),
    "gemma3n": model("Gemma3n", num_hidden_layers=5, num_key_value_heads=2, head_dim=16, sliding_window=24, layer_types=[
        f"{kind}_attention" for kind in ("sliding", "full", "sliding", "sliding", "full")], num_kv_shared_layers=2,
        vocab_size_per_layer_input=60, hidden_size_per_layer_input=8, altup_num_inputs=3, altup_active_idx=1, laurel_rank=8,
        final_logit_softcapping=20.0, active=GATE, topk=TOPK, activation_sparsity_pattern=TOPK),
    "bitnet": model("BitNet", num_key_value_heads=2, active=GATE),
}


def build(about):
    name = {"Gemma3": "Gemma3Text", "Gemma3n": "Gemma3nText"}.get(about["kind"], about["kind"])
    config = getattr(tf, f"{name}Config")(**about["fields"])
    config._attn_implementation = "eager"
    made = getattr(tf, f"{about['kind']}ForCausalLM")(config).eval()
    for key, value in made.named_parameters():
        noise = torch.randn(value.shape)
        if value.ndim == 2:
            noise *= 1.0 if "embed" in key else 1.5 * value.shape[1] ** -0.5
        elif key.endswith("bias"):
            noise *= 0.2
        else:
            # a norm: about what it is when it does nothing
            noise = value.detach() + 0.2 * noise
        value.data = noise.to(about["dtype"]).to(torch.float32)
    if about["change"]:
        about["change"](made)
    return made


def layers_of(made):
    inner = made.transformer if hasattr(made, "transformer") else made.model
    inner = getattr(inner, "decoder", inner)
    return inner.h if hasattr(inner, "h") else inner.layers


def cutoff(gate, share):
    """Gemma 3n's own, in f64."""
    gate = gate.double()
    deviations = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(share).double())
    return gate.mean() + deviations * gate.std(unbiased=False)


def active_bits(about, seen):
    if about["topk"]:
        rows = [gate > cutoff(gate, share) if share else gate > -torch.inf for [gate], share in zip(seen, about["topk"])]
    else:
        rows = [torch.stack(parts).amin(0) > about["threshold"] for parts in seen]
    weights = 2 ** torch.arange(8)
    return torch.stack([(row.view(-1, 8) * weights).sum(1).to(torch.uint8) for row in rows])


@torch.no_grad()
def prompt_of(about, made, length, seed):
    """A prompt with what follows it, or None where a token hangs on a rounding."""
    seen, hooks = [[] for _ in layers_of(made)], []
    for layer, store in zip(layers_of(made), seen):
        for module in about["active"] or []:
            keep = lambda _, __, out, store=store: store.append(out.reshape(-1, out.shape[-1])[-1])
            hooks.append(layer.get_submodule(module).register_forward_hook(keep))
    generator = torch.Generator().manual_seed(seed)
    ids = [1] + torch.randint(3, VOCAB, (length - 1,), generator=generator).tolist()
    logits = made(torch.tensor([ids]), use_cache=False).logits[0, -1]
    for hook in hooks:
        hook.remove()
    tensors = {"logits": logits.clone()}
    if about["active"]:
        tensors["active"] = active_bits(about, seen)
    greedy, margin = [], float("inf")
    while len(greedy) < GREEDY:
        best = logits.topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        greedy.append(best.indices[0].item())
        logits = made(torch.tensor([ids + greedy]), use_cache=False).logits[0, -1]
    if margin < MARGIN_MIN:
        return None
    return tensors, dict(prompt_ids=ids, greedy_ids=greedy, min_top2_margin=round(margin, 4))


def make(name, about):
    torch.manual_seed(sum(map(ord, name)))
    made = build(about)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    prompts, tensors = [], {}
    for number, length in enumerate([7, CONTEXT - GREEDY]):
        found = next(filter(None, (prompt_of(about, made, length, seed) for seed in range(100))))
        tensors |= {f"{key}.{number}": value for key, value in found[0].items()}
        prompts.append(found[1])
    made.to(about["dtype"]).save_pretrained(folder)
    if about["rewrite"]:
        path = folder / "config.json"
        path.write_text(json.dumps(about["rewrite"](json.loads(path.read_text())), indent=2) + "\n")
    (folder / "reference").mkdir()
    save_file(tensors, folder / "reference" / "reference.safetensors")
    versions = dict(torch=torch.__version__, transformers=tf.__version__)
    told = json.dumps(dict(versions=versions, prompts=prompts))
    (folder / "reference" / "reference.json").write_text(told + "\n")
    print(name, [prompt["min_top2_margin"] for prompt in prompts], [hex(t.sum().item()) if t.dtype == torch.uint8 else "" for t in tensors.values()])


for name in sys.argv[1:] or MODELS:
    make(name, MODELS[name])
