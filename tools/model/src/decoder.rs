//! The one decoder: all of a model but its FFN, as its description says.

use anyhow::Result;
use candle_core::{Device, Module, Tensor};
use candle_nn::Linear;

use super::architecture::{LayerKind, NormKind, Order, Qkv};
use super::attention::{Heads, Mask, capped};
use super::config::ModelConfig;
use super::loader::{Loader, Norm};
use super::rotary::{Angles, Rotary};
use super::{FeedForward, LayerFfn, State};

/// The dense parts of a model.
pub(crate) struct Decoder {
    embedding: Tensor,
    /// The table, and how many of its rows come before the first position.
    learned_positions: Option<(Tensor, usize)>,
    /// Into the hidden size and out of it, where the embeddings have another width.
    projections: Option<[Linear; 2]>,
    ropes: Vec<Rotary>,
    layers: Vec<Layer>,
    final_norm: Option<Norm>,
    head: Linear,
    embedding_scale: Option<f64>,
    residual_scale: Option<f64>,
    head_scale: Option<f64>,
    logit_cap: Option<f64>,
}

struct Layer {
    kind: LayerKind,
    order: Order,
    attention: Attention,
    attention_norm: Norm,
    /// None where the FFN shares attention's.
    ffn_norm: Option<Norm>,
    /// After attention, after the FFN.
    after: Option<[Norm; 2]>,
}

struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: Heads,
    head_norms: Option<[Norm; 2]>,
    sub_norm: Option<Norm>,
}

/// What layers share during a pass: masks by window, angles by kind of rotary positions.
struct Places {
    position: usize,
    masks: Vec<(Option<usize>, Mask)>,
    angles: Vec<Angles>,
}

impl Decoder {
    pub(crate) fn load(loader: &mut Loader<'_>, config: &ModelConfig) -> Result<Self> {
        let (about, names) = (&config.architecture, &config.architecture.names);
        let (hidden, width) = (config.hidden, about.embedding_width);
        let name = |end: &str| format!("{}{end}", config.prefix);
        let mut embedding_name = name(&format!("{}.weight", names.embedding));
        if config.tie_word_embeddings
            && !loader.has(&embedding_name)
            && loader.has("lm_head.weight")
        {
            "lm_head.weight".clone_into(&mut embedding_name);
        }
        let embedding = loader.tensor(&embedding_name, &[config.vocab, width])?;
        let bias = about.head_bias.then_some("lm_head.bias");
        let head = if config.tie_word_embeddings {
            Linear::new(embedding.clone(), loader.bias(bias, config.vocab)?)
        } else {
            loader.linear("lm_head.weight", bias, config.vocab, width)?
        };
        let learned_positions = match about.learned_positions {
            Some(before) => {
                let shape = [config.max_positions + before, hidden];
                Some((loader.tensor(&name("embed_positions.weight"), &shape)?, before))
            }
            None => None,
        };
        let projections = if width == hidden {
            None
        } else {
            let into = loader.linear(&name("project_in.weight"), None, hidden, width)?;
            Some([into, loader.linear(&name("project_out.weight"), None, width, hidden)?])
        };
        let layers = (0..config.layers)
            .map(|layer| Layer::load(loader, config, layer))
            .collect::<Result<_>>()?;
        let final_norm = about
            .final_norm
            .then(|| loader.norm(&name(names.final_norm), hidden, about.norm, config.norm_eps))
            .transpose()?;
        Ok(Self {
            embedding,
            learned_positions,
            projections,
            // After the layers, whose weights have to be of this head_dim.
            ropes: about.ropes.iter().map(Rotary::new).collect(),
            layers,
            final_norm,
            head,
            embedding_scale: about.embedding_scale,
            residual_scale: about.residual_scale,
            head_scale: about.head_scale,
            logit_cap: about.logit_cap,
        })
    }

    /// Hidden states [tokens, hidden] after the last layer.
    pub(crate) fn hidden(
        &self,
        state: &mut State,
        tokens: &[u32],
        ffn: &mut dyn FeedForward,
    ) -> Result<Tensor> {
        let places = self.places(state.position, tokens.len())?;
        let mut x = self.embed(&places, tokens)?;
        for (index, (layer, cache)) in self.layers.iter().zip(&mut state.caches).enumerate() {
            let mut attend = |x: &Tensor| -> Result<Tensor> {
                let attention = &layer.attention;
                let angles = layer.kind.rope.and_then(|rope| places.angles.get(rope));
                let [q, k, v] = attention.project(x, angles)?;
                let (k, v) = cache.append(places.position, &k, &v)?;
                attention.finish(&attention.heads.attend(&q, &k, &v, places.mask(&layer.kind))?)
            };
            let mut own = LayerFfn { ffn: &mut *ffn, layer: index };
            x = layer.forward(x, &mut attend, &mut own, self.residual_scale)?;
        }
        Ok(x)
    }

    /// Logits [rows, vocab] of some hidden states [rows, hidden].
    pub(crate) fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = match &self.final_norm {
            Some(norm) => norm.forward(x)?,
            None => x.clone(),
        };
        if let Some([_, out]) = &self.projections {
            x = out.forward(&x)?;
        }
        let logits = self.head.forward(&scaled(x, self.head_scale)?)?;
        Ok(self.logit_cap.map_or(Ok(logits.clone()), |cap| capped(&logits, cap))?)
    }

    fn embed(&self, places: &Places, tokens: &[u32]) -> Result<Tensor> {
        let mut x = self.embedding.index_select(&ids(tokens)?, 0)?;
        if let Some([into, _]) = &self.projections {
            x = into.forward(&x)?;
        }
        if let Some((table, before)) = &self.learned_positions {
            let first = places.position + before;
            // Limits of the configuration keep them within 32 bits.
            let rows: Vec<u32> = (first..first + tokens.len()).map(|row| row as u32).collect();
            x = (x + table.index_select(&ids(&rows)?, 0)?)?;
        }
        scaled(x, self.embedding_scale)
    }

    fn places(&self, position: usize, tokens: usize) -> Result<Places> {
        let mut masks: Vec<(Option<usize>, Mask)> = Vec::new();
        for window in self.layers.iter().map(|layer| layer.kind.window) {
            if masks.iter().all(|(known, _)| *known != window) {
                masks.push((window, Mask::new(position, tokens, window)?));
            }
        }
        let angles = self.ropes.iter().map(|rope| rope.angles(position, tokens));
        Ok(Places { position, masks, angles: angles.collect::<Result<_>>()? })
    }
}

impl Places {
    fn mask(&self, kind: &LayerKind) -> &Mask {
        let found = self.masks.iter().find(|(window, _)| *window == kind.window);
        &found.unwrap_or(&self.masks[0]).1
    }
}

impl Layer {
    fn load(loader: &mut Loader<'_>, config: &ModelConfig, layer: usize) -> Result<Self> {
        let (about, names) = (&config.architecture, &config.architecture.names);
        let prefix = config.layer_prefix(layer);
        let attention = Attention::load(loader, config, &prefix)?;
        let mut norm = |name: &str| {
            loader.norm(&format!("{prefix}{name}"), config.hidden, about.norm, config.norm_eps)
        };
        let shared = about.order == Order::Parallel { ffn_norm: false };
        Ok(Self {
            kind: about.layers.kind(layer),
            order: about.order,
            attention,
            attention_norm: norm(names.attention_norm)?,
            ffn_norm: if shared { None } else { Some(norm(names.ffn_norm)?) },
            after: match about.order {
                Order::Around => Some([norm(names.after[0])?, norm(names.after[1])?]),
                _ => None,
            },
        })
    }

    /// One layer; what attention and FFN give is multiplied by `scale` before it is added.
    fn forward(
        &self,
        x: Tensor,
        attend: &mut dyn FnMut(&Tensor) -> Result<Tensor>,
        ffn: &mut LayerFfn<'_>,
        scale: Option<f64>,
    ) -> Result<Tensor> {
        let ffn_norm = self.ffn_norm.as_ref().unwrap_or(&self.attention_norm);
        let [after_attention, after_ffn] = match &self.after {
            Some([attention, ffn]) => [Some(attention), Some(ffn)],
            None => [None, None],
        };
        match self.order {
            Order::Before | Order::Around => {
                let attended = attend(&self.attention_norm.forward(&x)?)?;
                let x = (x + scaled(normed(attended, after_attention)?, scale)?)?;
                let out = ffn.forward(&ffn_norm.forward(&x)?)?;
                Ok((x + scaled(normed(out, after_ffn)?, scale)?)?)
            }
            Order::After => {
                let attended = attend(&x)?;
                let x = self.attention_norm.forward(&(x + attended)?)?;
                let out = ffn.forward(&x)?;
                Ok(ffn_norm.forward(&(x + out)?)?)
            }
            Order::Parallel { .. } => {
                let before = self.attention_norm.forward(&x)?;
                let own = self.ffn_norm.as_ref();
                let input = own.map_or(Ok(before.clone()), |norm| norm.forward(&x))?;
                // Its weights are read while attention computes.
                ffn.begin(&input)?;
                let attended = attend(&before)?;
                let out = ffn.forward(&input)?;
                Ok(((attended + out)? + x)?)
            }
        }
    }
}

impl Attention {
    fn load(loader: &mut Loader<'_>, config: &ModelConfig, prefix: &str) -> Result<Self> {
        let &ModelConfig { hidden, heads, kv_heads, head_dim, norm_eps, .. } = config;
        let (about, names) = (&config.architecture.attention, &config.architecture.names);
        let kind = config.architecture.norm;
        let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let mut matrix = |name: &str, bias: bool, output: usize, input: usize| {
            let (weight, bias_name) =
                (format!("{prefix}{name}.weight"), format!("{prefix}{name}.bias"));
            loader.linear(&weight, bias.then_some(bias_name.as_str()), output, input)
        };
        let [q, k, v] = match names.qkv {
            Qkv::Apart([q, k, v]) => [
                matrix(q, about.qkv_bias, q_width, hidden)?,
                matrix(k, about.qkv_bias, kv_width, hidden)?,
                matrix(v, about.qkv_bias, kv_width, hidden)?,
            ],
            Qkv::Grouped(name) => {
                let all = matrix(name, about.qkv_bias, q_width + 2 * kv_width, hidden)?;
                ungrouped(&all, heads / kv_heads, head_dim)?
            }
        };
        let out = matrix(names.attention_out, about.out_bias, hidden, q_width)?;
        let mut norm = |name: &str, width: usize, kind: NormKind| {
            loader.norm(&format!("{prefix}{name}"), width, kind, norm_eps)
        };
        let head_norms = match about.head_norms {
            Some([q, k]) => Some([norm(q, head_dim, kind)?, norm(k, head_dim, kind)?]),
            None => None,
        };
        let sub_norm =
            names.attention_sub_norm.map(|name| norm(name, q_width, kind)).transpose()?;
        let heads = Heads { heads, kv_heads, head_dim, scale: about.scale, cap: about.cap };
        Ok(Self { q, k, v, out, heads, head_norms, sub_norm })
    }

    /// Queries, keys and values of normed hidden states.
    fn project(&self, x: &Tensor, angles: Option<&Angles>) -> Result<[Tensor; 3]> {
        let (mut q, mut k, v) = (self.q.forward(x)?, self.k.forward(x)?, self.v.forward(x)?);
        let Heads { heads, kv_heads, head_dim, .. } = self.heads;
        if let Some([q_norm, k_norm]) = &self.head_norms {
            for (x, norm) in [(&mut q, q_norm), (&mut k, k_norm)] {
                let shape = x.dims2()?;
                *x = norm.forward(&x.reshape(((), head_dim))?)?.reshape(shape)?;
            }
        }
        if let Some(angles) = angles {
            (q, k) = (angles.turn(&q, heads)?, angles.turn(&k, kv_heads)?);
        }
        Ok([q, k, v])
    }

    fn finish(&self, attended: &Tensor) -> Result<Tensor> {
        Ok(match &self.sub_norm {
            Some(norm) => self.out.forward(&norm.forward(attended)?)?,
            None => self.out.forward(attended)?,
        })
    }
}

/// Queries, keys and values out of one matrix that has, for each key-value head, `share` heads of
/// queries, one of keys and one of values.
fn ungrouped(all: &Linear, share: usize, head_dim: usize) -> Result<[Linear; 3]> {
    let rows = |tensor: &Tensor, first: usize, heads: usize| -> candle_core::Result<Tensor> {
        let columns = tensor.elem_count() / tensor.dim(0)?;
        let groups = tensor.reshape(((), share + 2, head_dim * columns))?;
        let groups = groups.narrow(1, first, heads)?.contiguous()?;
        if tensor.rank() == 1 { groups.flatten_all() } else { groups.reshape(((), columns)) }
    };
    let part = |first, heads| -> Result<Linear> {
        let bias = all.bias().map(|bias| rows(bias, first, heads)).transpose()?;
        Ok(Linear::new(rows(all.weight(), first, heads)?, bias))
    };
    Ok([part(0, share)?, part(share, 1)?, part(share + 1, 1)?])
}

fn normed(x: Tensor, norm: Option<&Norm>) -> Result<Tensor> {
    Ok(norm.map_or(Ok(x.clone()), |norm| norm.forward(&x))?)
}

fn scaled(x: Tensor, scale: Option<f64>) -> Result<Tensor> {
    Ok(scale.map_or(Ok(x.clone()), |scale| &x * scale)?)
}

fn ids(ids: &[u32]) -> Result<Tensor> {
    Ok(Tensor::from_slice(ids, ids.len(), &Device::Cpu)?)
}
