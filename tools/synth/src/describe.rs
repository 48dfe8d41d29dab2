//! What describes a model, beside its weights: `config.json` and the like, and a README for people.

use serde_json::{Value, json};

use crate::folder::Recipe;
use crate::shapes::Family;
use crate::tokens::{BEGIN, END, PAD, SPECIAL};

/// `config.json`.
pub(crate) fn config(recipe: &Recipe) -> Value {
    let shape = recipe.shape;
    let mut config = json!({
        "_name_or_path": format!("synthetic({})", shape.name),
        "lnp_synthetic": recipe.how(),
        "torch_dtype": recipe.weights.name(),
        "bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": PAD,
        "vocab_size": shape.vocab, "hidden_size": shape.hidden, "num_hidden_layers": recipe.layers,
        "num_attention_heads": shape.heads, "max_position_embeddings": shape.positions,
        // untied, so that a text goes on: a head that is the embeddings repeats the last token
        "tie_word_embeddings": false, "use_cache": true,
    });
    let own = match shape.family {
        Family::Opt { norm_after } => json!({
            "model_type": "opt", "architectures": ["OPTForCausalLM"], "activation_function": "relu",
            "ffn_dim": shape.neurons, "word_embed_proj_dim": shape.embedding_width(),
            "do_layer_norm_before": !norm_after, "enable_bias": true, "_remove_final_layer_norm": false,
            "layer_norm_elementwise_affine": true, "dropout": 0.0, "attention_dropout": 0.0, "layerdrop": 0.0,
        }),
        family => {
            let (model_type, class, activation) = match family {
                Family::Mistral => ("mistral", "MistralForCausalLM", "relu"),
                Family::Arcee => ("arcee", "ArceeForCausalLM", "relu2"),
                _ => ("llama", "LlamaForCausalLM", "relu"),
            };
            let mut own = json!({
                "model_type": model_type, "architectures": [class], "hidden_act": activation,
                "intermediate_size": shape.neurons, "num_key_value_heads": shape.kv_heads,
                "head_dim": shape.head_dim(), "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
                "attention_bias": false, "mlp_bias": false, "attention_dropout": 0.0,
            });
            if family == Family::Mistral {
                own["sliding_window"] = 4096.into();
            }
            if shape.name == "arcee-4.5b" {
                own["rope_scaling"] = json!({
                    "rope_type": "yarn", "factor": 20.0, "original_max_position_embeddings": 4096,
                    "mscale": 1.0, "beta_fast": 32.0, "beta_slow": 1.0,
                });
            }
            own
        }
    };
    if let (Some(config), Value::Object(own)) = (config.as_object_mut(), own) {
        config.extend(own);
    }
    config
}

/// `generation_config.json`.
pub(crate) fn generation() -> Value {
    json!({"bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": PAD})
}

/// `tokenizer_config.json`.
pub(crate) fn tokenizer() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": true,
        "pad_token": SPECIAL[PAD], "bos_token": SPECIAL[BEGIN], "eos_token": SPECIAL[END],
        "clean_up_tokenization_spaces": false,
    })
}

/// A page for whoever finds the folder.
pub(crate) fn readme(recipe: &Recipe) -> String {
    let shape = recipe.shape;
    format!(
        "# synthetic({name})\n\n\
         **Synthetic: no trained model.** It has the sizes and the file format of {name}, with weights drawn at random so \
         that its FFN neurons are active as those of real ReLU models are. What it says is made-up words; what its \
         timing and its activity are like is what it is for.\n\n\
         - {layers} of {of} layers of {neurons} neurons, hidden size {hidden}, {dtype}, {active} of the neurons active, seed {seed}\n\
         - made by `lnp synth --model {name}`: {how}\n\
         - `text/profile.txt` and `text/test.txt`: texts as it writes them, of different words\n",
        name = shape.name,
        layers = recipe.layers,
        of = shape.layers,
        neurons = shape.neurons,
        hidden = shape.hidden,
        dtype = recipe.weights.name(),
        active = recipe.active,
        seed = recipe.seed,
        how = recipe.how(),
    )
}
