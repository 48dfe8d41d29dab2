//! The one decoder: all of a model but its FFN, as its description says.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use candle_core::{Module, Tensor};

use super::architecture::{LayerKind, Order, Qkv};
use super::attention::{Heads, Mask, capped};
use super::config::ModelConfig;
use super::loader::{Loader, Norm};
use super::matrix::Matrix;
use super::rotary::{Angles, Rotary};
use super::streams::{Flow, Streams};
use super::{FeedForward, LayerFfn, State};

/// The dense parts of a model.
pub(crate) struct Decoder {
    embedding: Matrix,
    /// The table, and how many of its rows come before the first position.
    learned_positions: Option<(Matrix, usize)>,
    /// Into the hidden size and out of it, where the embeddings have another width.
    projections: Option<[Matrix; 2]>,
    ropes: Vec<Rotary>,
    layers: Vec<Layer>,
    final_norm: Option<Norm>,
    /// None where it is the embeddings.
    head: Option<Matrix>,
    head_bias: Option<Tensor>,
    embedding_scale: Option<f64>,
    residual_scale: Option<f64>,
    head_scale: Option<f64>,
    logit_cap: Option<f64>,
    streams: Option<Streams>,
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
    beside: Option<Beside>,
}

/// What is added to attention of the same input: `x + norm(right(left(x)))`, a matrix of low rank (Gemma 3n).
struct Beside {
    left: Matrix,
    right: Matrix,
    norm: Norm,
}

struct Attention {
    q: Matrix,
    own: KeysAndValues,
    out: Matrix,
    heads: Heads,
    q_norm: Option<Norm>,
    sub_norm: Option<Norm>,
}

struct OwnKeysAndValues {
    k: Matrix,
    v: Matrix,
    k_norm: Option<Norm>,
    v_norm: Option<Norm>,
}

/// Attention of a layer's tokens; who reads for its FFN goes on meanwhile.
type Attend<'a> = dyn FnMut(&Tensor, &mut LayerFfn<'_>) -> Result<Tensor> + 'a;

/// Where keys and values come from.
enum KeysAndValues {
    Own(Box<OwnKeysAndValues>),
    /// Those of this layer, before it.
    Of(usize),
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
        let on_flash = loader.options().embeddings_on_flash;
        ensure!(
            !(on_flash && config.tie_word_embeddings),
            "{}: the head of this model is its embeddings, which every token needs whole: they cannot stay on flash",
            loader.checkpoint().path().display()
        );
        let embedding = if !on_flash {
            loader.matrix(&embedding_name, None, config.vocab, width)?
        } else {
            loader.table(&embedding_name, [config.vocab, width])?
        };
        let own_head = (!config.tie_word_embeddings)
            .then(|| loader.matrix("lm_head.weight", None, config.vocab, width));
        let head = own_head.transpose()?;
        let head_bias = about.head_bias.then_some("lm_head.bias");
        let head_bias = loader.bias(head_bias, config.vocab)?;
        let learned_positions = match about.learned_positions {
            Some(before) => {
                let shape = [config.max_positions + before, hidden];
                Some((loader.table(&name("embed_positions.weight"), shape)?, before))
            }
            None => None,
        };
        let projections = if width == hidden {
            None
        } else {
            let into = loader.matrix(&name("project_in.weight"), None, hidden, width)?;
            Some([into, loader.matrix(&name("project_out.weight"), None, width, hidden)?])
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
            head_bias,
            embedding_scale: about.embedding_scale,
            residual_scale: about.residual_scale,
            head_scale: about.head_scale,
            logit_cap: about.logit_cap,
            streams: match about.streams {
                Some(streams) => Some(Streams::load(loader, config, streams)?),
                None => None,
            },
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
        let mut flow = match &self.streams {
            Some(streams) => Some(streams.begin(&x, tokens)?),
            None => None,
        };
        let mut ffn_time = Duration::ZERO;
        for (index, layer) in self.layers.iter().enumerate() {
            let mut attend = |x: &Tensor, ffn: &mut LayerFfn<'_>| -> Result<Tensor> {
                let attention = &layer.attention;
                let angles = layer.kind.rope.and_then(|rope| places.angles.get(rope));
                let q = attention.queries(x, angles)?;
                ffn.go_on()?;
                let of = match &attention.own {
                    KeysAndValues::Of(before) => *before,
                    KeysAndValues::Own(own) => {
                        let [k, v] = own.of(&attention.heads, x, angles)?;
                        ffn.go_on()?;
                        state.caches[index].append(places.position, &k, &v)?;
                        index
                    }
                };
                let kv = state.caches[of].up_to(places.position + tokens.len())?;
                let attended = attention.heads.attend(&q, kv, places.mask(&layer.kind))?;
                ffn.go_on()?;
                attention.finish(&attended)
            };
            let mut own = LayerFfn { ffn: &mut *ffn, layer: index, time: &mut ffn_time };
            if let Some(flow) = &mut flow {
                x = flow.predict(index)?;
            }
            x = layer.forward(x, &mut attend, &mut own, self.residual_scale)?;
            if let Some(flow) = &mut flow {
                flow.correct(index, &x)?;
            }
        }
        state.times.ffn += ffn_time;
        flow.map_or(Ok(x), Flow::end)
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
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        let mut logits = head.forward(&scaled(x, self.head_scale)?)?;
        if let Some(bias) = &self.head_bias {
            logits = logits.broadcast_add(bias)?;
        }
        Ok(self.logit_cap.map_or(Ok(logits.clone()), |cap| capped(&logits, cap))?)
    }

    fn embed(&self, places: &Places, tokens: &[u32]) -> Result<Tensor> {
        let mut x = self.embedding.rows_of(tokens)?;
        if let Some([into, _]) = &self.projections {
            x = into.forward(&x)?;
        }
        if let Some((table, before)) = &self.learned_positions {
            let first = places.position + before;
            // Limits of the configuration keep them within 32 bits.
            let rows: Vec<u32> = (first..first + tokens.len()).map(|row| row as u32).collect();
            x = (x + table.rows_of(&rows)?)?;
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
        let attention = Attention::load(loader, config, layer, &prefix)?;
        let beside = about.streams.map(|streams| {
            Beside::load(loader, config, streams.beside_rank, &format!("{prefix}laurel."))
        });
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
            beside: beside.transpose()?,
        })
    }

    /// One layer; what attention and FFN give is multiplied by `scale` before it is added.
    fn forward(
        &self,
        x: Tensor,
        attend: &mut Attend<'_>,
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
                let before = self.attention_norm.forward(&x)?;
                let attended = attend(&before, ffn)?;
                let mut x = (x + scaled(normed(attended, after_attention)?, scale)?)?;
                if let Some(beside) = &self.beside {
                    x = ((x + beside.forward(&before)?)? / 2f64.sqrt())?;
                }
                let out = ffn.forward(&ffn_norm.forward(&x)?)?;
                Ok((x + scaled(normed(out, after_ffn)?, scale)?)?)
            }
            Order::After => {
                let attended = attend(&x, ffn)?;
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
                let attended = attend(&before, ffn)?;
                let out = ffn.forward(&input)?;
                Ok(((attended + out)? + x)?)
            }
        }
    }
}

impl Beside {
    fn load(
        loader: &mut Loader<'_>,
        config: &ModelConfig,
        rank: usize,
        prefix: &str,
    ) -> Result<Self> {
        let hidden = config.hidden;
        let mut matrix = |name: &str, output: usize, input: usize| {
            loader.matrix(&format!("{prefix}{name}.weight"), None, output, input)
        };
        let left = matrix("linear_left", rank, hidden)?;
        let right = matrix("linear_right", hidden, rank)?;
        let norm = format!("{prefix}post_laurel_norm");
        let norm = loader.norm(&norm, hidden, config.architecture.norm, config.norm_eps)?;
        Ok(Self { left, right, norm })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let low = self.right.forward(&self.left.forward(x)?)?;
        Ok((x + self.norm.forward(&low)?)?)
    }
}

impl Attention {
    fn load(
        loader: &mut Loader<'_>,
        config: &ModelConfig,
        layer: usize,
        prefix: &str,
    ) -> Result<Self> {
        let &ModelConfig { hidden, heads, kv_heads, head_dim, norm_eps, .. } = config;
        let (about, names) = (&config.architecture.attention, &config.architecture.names);
        let kind = config.architecture.norm;
        let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let matrix =
            |loader: &mut Loader<'_>, name: &str, bias: bool, output: usize, input: usize| {
                let bias = bias.then(|| format!("{prefix}{name}.bias"));
                loader.matrix(&format!("{prefix}{name}.weight"), bias.as_deref(), output, input)
            };
        let norm = |loader: &mut Loader<'_>, name: &str, width: usize| {
            loader.norm(&format!("{prefix}{name}"), width, kind, norm_eps)
        };
        let head_norm = |loader: &mut Loader<'_>, at: usize| {
            about.head_norms.map(|names| norm(loader, names[at], head_dim)).transpose()
        };
        let first_sharing = config.layers.saturating_sub(about.sharing_layers);
        let shared = config.architecture.layers.shared_from(layer, first_sharing);
        let bias = about.qkv_bias;
        let (q, own) = match (shared, names.qkv) {
            (Some(before), Qkv::Apart([q, ..])) => {
                (matrix(loader, q, bias, q_width, hidden)?, KeysAndValues::Of(before))
            }
            (_, qkv) => {
                let [q, k, v] = match qkv {
                    Qkv::Apart([q, k, v]) => [
                        matrix(loader, q, bias, q_width, hidden)?,
                        matrix(loader, k, bias, kv_width, hidden)?,
                        matrix(loader, v, bias, kv_width, hidden)?,
                    ],
                    Qkv::Grouped(name) => {
                        let rows = q_width + 2 * kv_width;
                        let bias = bias.then(|| format!("{prefix}{name}.bias"));
                        let bias = loader.bias(bias.as_deref(), rows)?;
                        let name = format!("{prefix}{name}.weight");
                        ungrouped(
                            loader,
                            (&name, [rows, hidden], bias),
                            heads / kv_heads,
                            head_dim,
                        )?
                    }
                };
                let k_norm = head_norm(loader, 1)?;
                let v_norm =
                    about.value_norm.then(|| Norm::plain(head_dim, norm_eps)).transpose()?;
                (q, KeysAndValues::Own(Box::new(OwnKeysAndValues { k, v, k_norm, v_norm })))
            }
        };
        let out = matrix(loader, names.attention_out, about.out_bias, hidden, q_width)?;
        let q_norm = head_norm(loader, 0)?;
        let sub_norm =
            names.attention_sub_norm.map(|name| norm(loader, name, q_width)).transpose()?;
        let heads = Heads { heads, kv_heads, head_dim, scale: about.scale, cap: about.cap };
        Ok(Self { q, own, out, heads, q_norm, sub_norm })
    }

    /// Queries of normed hidden states.
    fn queries(&self, x: &Tensor, angles: Option<&Angles>) -> Result<Tensor> {
        let q = self.heads.normed(self.q.forward(x)?, self.q_norm.as_ref())?;
        angles.map_or(Ok(q.clone()), |angles| angles.turn(&q, self.heads.heads))
    }

    fn finish(&self, attended: &Tensor) -> Result<Tensor> {
        Ok(match &self.sub_norm {
            Some(norm) => self.out.forward(&norm.forward(attended)?)?,
            None => self.out.forward(attended)?,
        })
    }
}

impl OwnKeysAndValues {
    /// Keys and values of normed hidden states.
    fn of(&self, heads: &Heads, x: &Tensor, angles: Option<&Angles>) -> Result<[Tensor; 2]> {
        let k = heads.normed(self.k.forward(x)?, self.k_norm.as_ref())?;
        let v = heads.normed(self.v.forward(x)?, self.v_norm.as_ref())?;
        let k = angles.map_or(Ok(k.clone()), |angles| angles.turn(&k, heads.kv_heads))?;
        Ok([k, v])
    }
}

/// Queries, keys and values out of one matrix, with its bias, that has, for each key-value head, `share` heads of
/// queries, one of keys and one of values.
fn ungrouped(
    loader: &mut Loader<'_>,
    (name, shape, bias): (&str, [usize; 2], Option<Tensor>),
    share: usize,
    head_dim: usize,
) -> Result<[Matrix; 3]> {
    let rows = |tensor: &Tensor, first: usize, heads: usize| -> candle_core::Result<Tensor> {
        let columns = tensor.elem_count() / tensor.dim(0)?;
        let groups = tensor.reshape(((), share + 2, head_dim * columns))?;
        let groups = groups.narrow(1, first, heads)?.contiguous()?;
        if tensor.rank() == 1 { groups.flatten_all() } else { groups.reshape(((), columns)) }
    };
    // Of each group: where they begin, and how many.
    let heads_of = [(0, share), (share, 1), (share + 1, 1)];
    let groups = shape[0] / ((share + 2) * head_dim);
    let counts = heads_of.map(|(_, heads)| groups * heads * head_dim);
    let matrices = loader.cut(name, shape, counts, |all, part| {
        let (first, heads) = heads_of[part];
        rows(all, first, heads)
    })?;
    let mut with_biases = Vec::new();
    for (matrix, (first, heads)) in matrices.into_iter().zip(heads_of) {
        let bias = bias.as_ref().map(|bias| rows(bias, first, heads)).transpose()?;
        with_biases.push(matrix.with_bias(bias));
    }
    with_biases.try_into().map_err(|_| anyhow!("not three parts"))
}

fn normed(x: Tensor, norm: Option<&Norm>) -> Result<Tensor> {
    Ok(norm.map_or(Ok(x.clone()), |norm| norm.forward(&x))?)
}

fn scaled(x: Tensor, scale: Option<f64>) -> Result<Tensor> {
    Ok(scale.map_or(Ok(x.clone()), |scale| &x * scale)?)
}
