//! Activations of the FFN: their values, and what they make inactive.

use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use candle_core::{Result as Computed, Tensor};

use crate::json::Fields;

/// Activation of the FFN: what makes a neuron inactive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// x where it is above the threshold, else 0: the value is not shifted.
    Fatrelu {
        /// What is at most this is cut to zero; not negative.
        threshold: f32,
    },
    /// max(x, 0) squared.
    Relu2,
    /// max(gate, 0) * max(up, 0): both have to be above zero.
    Drelu,
    /// x / (1 + exp(-x)).
    Silu,
    /// x / 2 * (1 + erf(x / sqrt 2)).
    Gelu,
    /// Its approximation by tanh.
    GeluTanh,
    /// The same of what x is above the cutoff of its token, else 0. The cutoff is the mean of x over all
    /// neurons of the layer and so many standard deviations more (Gemma 3n).
    GaussianTopk {
        /// Standard deviations above the mean.
        deviations: f32,
    },
}

impl Activation {
    /// The activation of this name, as configurations have it.
    ///
    /// # Errors
    /// An unknown name; fatrelu without its threshold.
    pub(crate) fn named(name: &str, fields: &Fields<'_>) -> Result<Self> {
        Ok(match name {
            "relu" => Self::Relu,
            "relu2" => Self::Relu2,
            "silu" | "swish" => Self::Silu,
            "gelu" | "gelu_python" => Self::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_python_tanh" => Self::GeluTanh,
            "fatrelu" => {
                let Some(threshold) = fields.number("hidden_act_param")? else {
                    bail!("key `hidden_act_param` is missing: the threshold of fatrelu")
                };
                Self::fatrelu(threshold)?
            }
            _ => bail!(
                "activation `{name}` is not supported; supported are: relu, relu2, fatrelu, silu, gelu, \
                 gelu_pytorch_tanh"
            ),
        })
    }

    fn fatrelu(threshold: f64) -> Result<Self> {
        ensure!(
            (0.0..f64::from(f32::MAX)).contains(&threshold),
            "hidden_act_param {threshold} is not supported: a threshold below zero, or no number"
        );
        Ok(Self::Fatrelu { threshold: threshold as f32 })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Fatrelu { .. } => "fatrelu",
            Self::Relu2 => "relu2",
            Self::Drelu => "drelu",
            Self::Silu => "silu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::GaussianTopk { .. } => "gaussian_topk",
        }
    }

    /// A neuron is active if and only if the product of its deciding row is above this; with dReLU each
    /// of its two products, with Gaussian top-k the product less the cutoff.
    ///
    /// # Errors
    /// SiLU and GELU, which are zero nowhere: thresholds make some inactive ([`crate::Activity`]).
    pub fn cut(self) -> Result<f32> {
        match self {
            Self::Relu | Self::Relu2 | Self::Drelu | Self::GaussianTopk { .. } => Ok(0.0),
            Self::Fatrelu { threshold } => Ok(threshold),
            Self::Silu | Self::Gelu | Self::GeluTanh => bail!(
                "activation `{}` leaves no neuron at zero: which are active needs thresholds; learn them with \
                 `lnp predict --activity SHARE` and give them with --activity, or take a checkpoint with relu, \
                 relu2, fatrelu or drelu",
                self.name()
            ),
        }
    }

    /// What a trace says of its bits: the activation of a product, or of two, above zero.
    pub(crate) fn rule(self, first: &str, up: &str) -> String {
        match self {
            Self::Drelu => format!("relu({first})>0 & relu({up})>0"),
            Self::Fatrelu { threshold } => format!("fatrelu_{threshold}({first})>0"),
            other => format!("{}({first})>0", other.name()),
        }
    }

    /// What becomes of the product with the first part: the gate, where there is one.
    pub(crate) fn activated(self, first: &Tensor) -> Computed<Tensor> {
        match self {
            Self::Relu | Self::Drelu => first.relu(),
            Self::Fatrelu { threshold } => {
                first.gt(threshold)?.where_cond(first, &first.zeros_like()?)
            }
            Self::Relu2 => first.relu()?.sqr(),
            Self::Silu => first.silu(),
            Self::Gelu => first.gelu_erf(),
            Self::GeluTanh => first.gelu(),
            Self::GaussianTopk { .. } => self.above_cutoff(first)?.relu()?.gelu(),
        }
    }

    /// The cutoff of each token, of products [tokens, all neurons of a layer]; none where the activation
    /// goes by the neuron alone.
    pub(crate) fn cutoffs(self, first: &Tensor) -> Computed<Option<Vec<f32>>> {
        let Self::GaussianTopk { deviations } = self else { return Ok(None) };
        let cutoff = |products: Vec<f32>| {
            let count = products.len() as f64;
            let mean = products.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
            let squares = products.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>();
            (mean + f64::from(deviations) * (squares / count).sqrt()) as f32
        };
        Ok(Some(first.to_vec2()?.into_iter().map(cutoff).collect()))
    }

    /// Products less their tokens' cutoffs, where there are any.
    fn above_cutoff(self, first: &Tensor) -> Computed<Tensor> {
        match self.cutoffs(first)? {
            Some(cutoffs) => {
                let tokens = cutoffs.len();
                first.broadcast_sub(&Tensor::from_vec(cutoffs, (tokens, 1), first.device())?)
            }
            None => Ok(first.clone()),
        }
    }

    /// What an activated gate is multiplied with, of the product with the up part.
    pub(crate) fn activated_up(self, up: Tensor) -> Computed<Tensor> {
        if self == Self::Drelu { up.relu() } else { Ok(up) }
    }

    /// What is to be above [`Self::cut`] for a neuron to be active.
    pub(crate) fn deciding(self, first: Tensor, up: Option<&Tensor>) -> Computed<Tensor> {
        match (self, up) {
            (Self::Drelu, Some(up)) => first.minimum(up),
            _ => self.above_cutoff(&first),
        }
    }
}

/// As the command line has them: the names of packs, fatrelu with its threshold behind a colon.
impl FromStr for Activation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(threshold) = text.strip_prefix("fatrelu:") {
            return Self::fatrelu(threshold.parse().context("the threshold is no number")?);
        }
        let named = [Self::Relu, Self::Relu2, Self::Drelu, Self::Silu, Self::Gelu, Self::GeluTanh];
        let found = named.into_iter().find(|activation| activation.name() == text);
        found.context("must be relu, relu2, drelu, fatrelu:THRESHOLD, silu, gelu or gelu_tanh")
    }
}
