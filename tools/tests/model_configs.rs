//! Configurations of well-known models (`configs/`, the fields that matter): each is read as what it is, or
//! refused by the field that is not supported.

use std::path::Path;

use anyhow::{Context, Result};
use lnp_model::ModelConfig;

/// Family, parts of a bundle, and activation; the sparse ones first.
const READ: [(&str, &str, usize, &str); 27] = [
    ("afm-4.5b", "arcee", 2, "relu2"),
    ("bamboo-base-7b", "bamboo", 3, "drelu"),
    ("minicpm-s-1b-sft", "minicpm", 3, "fatrelu"),
    ("nemotron-mini-4b-instruct", "nemotron", 2, "relu2"),
    ("opt-350m", "opt", 2, "relu"),
    ("opt-6.7b", "opt", 2, "relu"),
    ("prosparse-llama-2-7b", "sparsellama", 3, "fatrelu"),
    ("relullama-7b", "llama", 3, "relu"),
    ("sparselm-2b", "llama_sparse_relu", 3, "relu"),
    ("falcon-40b", "falcon", 2, "gelu"),
    ("falcon-7b", "falcon", 2, "gelu"),
    ("gemma-2-2b-it", "gemma2", 3, "gelu_tanh"),
    ("gemma-2b", "gemma", 3, "gelu_tanh"),
    ("gemma-3-270m", "gemma3_text", 3, "gelu_tanh"),
    ("gemma-3n-e2b-it", "gemma3n_text", 3, "gelu_tanh"),
    ("granite-3.0-2b", "granite", 3, "silu"),
    ("llama-2-7b", "llama", 3, "silu"),
    ("llama-3.1-8b-instruct", "llama", 3, "silu"),
    ("mistral-7b-v0.1", "mistral", 3, "silu"),
    ("mistral-7b-v0.3", "mistral", 3, "silu"),
    ("mobillama-1b", "llama", 3, "silu"),
    ("phi-2", "phi", 2, "gelu_tanh"),
    ("qwen2.5-0.5b", "qwen2", 3, "silu"),
    ("qwen2.5-7b-128k", "qwen2", 3, "silu"),
    ("qwen3-0.6b", "qwen3", 3, "silu"),
    ("smollm2-135m-instruct", "llama", 3, "silu"),
    ("tinyllama-1.1b", "llama", 3, "silu"),
];

/// What is said of the others.
const REFUSED: [(&str, &str); 12] = [
    ("bitnet-b1.58-2b-4t", "`quantization_config`: a quantised checkpoint is not supported"),
    ("deepseek-v3", "`n_routed_experts`: a mixture of experts is not supported"),
    ("falcon-rw-1b", "alibi true is not supported: only false is"),
    ("galactica-1.3b", "layer_norm_elementwise_affine false is not supported: only true is"),
    ("gemma-3-4b-it", "`vision_config`: a model with images is not supported"),
    ("gpt2", "model_type `gpt2` is not supported"),
    ("llama-2-7b-gptq", "`quantization_config`: a quantised checkpoint is not supported"),
    ("minicpm4-0.5b", "rope_type `longrope` is not supported"),
    ("mixtral-8x7b", "`num_local_experts`: a mixture of experts is not supported"),
    ("phi-3.5-mini", "model_type `phi3` is not supported"),
    ("pythia-70m", "model_type `gpt_neox` is not supported"),
    ("qwen3-30b-a3b", "`num_experts`: a mixture of experts is not supported"),
];

fn config(name: &str) -> Result<ModelConfig> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs");
    let text =
        std::fs::read_to_string(root.join(format!("{name}.json"))).context(name.to_owned())?;
    ModelConfig::from_json(&text)
}

#[test]
fn read_or_refused_by_name() -> Result<()> {
    for (name, family, parts, activation) in READ {
        let config = config(name).context(name)?;
        let found = (config.family, config.parts(), config.activation.name());
        assert_eq!(found, (family, parts, activation), "{name}");
    }
    for (name, expected) in REFUSED {
        let told = format!("{:#}", config(name).err().context(name)?);
        assert!(told.starts_with(expected), "{name}: {told}");
        assert_eq!(told.lines().count(), 1, "{name}");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs");
    assert_eq!(std::fs::read_dir(root)?.count(), READ.len() + REFUSED.len());
    Ok(())
}

/// Shapes of the publication's seven models.
#[test]
fn the_models_of_the_publication() -> Result<()> {
    for (name, layers, neurons, hidden, parts) in [
        ("opt-350m", 24, 4096, 1024, 2),
        ("opt-6.7b", 32, 16384, 4096, 2),
        ("prosparse-llama-2-7b", 32, 11008, 4096, 3),
        ("bamboo-base-7b", 32, 14336, 4096, 3),
        ("mobillama-1b", 22, 5632, 2048, 3),
        ("phi-2", 32, 10240, 2560, 2),
    ] {
        let config = config(name)?;
        let found = (config.layers, config.neurons, config.hidden, config.parts());
        assert_eq!(found, (layers, neurons, hidden, parts), "{name}");
    }
    Ok(())
}
