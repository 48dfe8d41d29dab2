//! From the caller's settings to the engine's.

use lnp_engine::limits::{GAP_BYTES_USUAL, STAGING_BYTES_MAX};
use lnp_engine::recorder::RecorderConfig;
use lnp_engine::sys::{BackEndChoice, ReadOptions};
use lnp_engine::{CachePolicy, Collapse, Combine, Config, DeviceLaw, Dimensions};

use crate::error::Failure;
use crate::types::*;

const FLAGS: u32 = LNP_VERIFY_READS
    | LNP_ALLOW_BUFFERED
    | LNP_ADAPT
    | LNP_NO_URING
    | LNP_NEEDS_URING
    | LNP_PREDICT;

/// What the settings ask for, but for what depends on the pack.
pub(crate) struct Settings(lnp_config_t);

impl Settings {
    pub(crate) fn new(config: lnp_config_t) -> Result<Self, Failure> {
        if config.struct_bytes as usize != size_of::<lnp_config_t>() {
            return Err(Failure::Argument("struct_bytes must be sizeof(lnp_config_t)"));
        }
        if config.flags & !FLAGS != 0 {
            return Err(Failure::Setting("flags has bits that mean nothing"));
        }
        if config.flags & LNP_NO_URING != 0 && config.flags & LNP_NEEDS_URING != 0 {
            return Err(Failure::Setting("LNP_NO_URING and LNP_NEEDS_URING exclude each other"));
        }
        Ok(Self(config))
    }

    pub(crate) const fn allow_buffered(&self) -> bool {
        self.0.flags & LNP_ALLOW_BUFFERED != 0
    }

    pub(crate) const fn predicts(&self) -> bool {
        self.0.flags & LNP_PREDICT != 0
    }

    /// What is to be recorded, if anything.
    pub(crate) fn recorder(&self) -> Option<RecorderConfig> {
        let config = RecorderConfig::new(self.0.record_tokens);
        let span_tokens = match self.0.record_span_tokens {
            0 => config.span_tokens,
            asked => asked,
        };
        (self.0.record_tokens > 0).then_some(RecorderConfig { span_tokens, ..config })
    }

    pub(crate) fn read_options(&self) -> ReadOptions {
        if self.0.flags & LNP_NO_URING != 0 {
            BackEndChoice::Pread.into()
        } else if self.0.flags & LNP_NEEDS_URING != 0 {
            BackEndChoice::Uring.into()
        } else {
            BackEndChoice::Auto.into()
        }
    }

    /// The engine's settings for a pack.
    pub(crate) fn engine(&self, dimensions: Dimensions) -> Result<Config, Failure> {
        let asked = &self.0;
        let mut config = Config {
            collapse: self.collapse()?,
            adapt: asked.flags & LNP_ADAPT != 0,
            cache_bundles: asked.cache_bundles,
            cache_policy: policy(asked.cache_policy)?,
            prefetch_bytes: bytes(asked.prefetch_bytes)?,
            verify_reads: asked.flags & LNP_VERIFY_READS != 0,
            ..Config::new(dimensions)
        };
        if asked.queue_depth != 0 {
            config.queue_depth = asked.queue_depth;
        }
        if asked.read_bytes_max != 0 {
            config.read_bytes_max = asked.read_bytes_max;
        }
        config.staging_bytes = if asked.staging_bytes != 0 {
            bytes(asked.staging_bytes)?
        } else {
            // what the areas for prefetches leave of the most that can be registered
            let most = STAGING_BYTES_MAX.saturating_sub(config.prefetch_bytes.saturating_mul(2));
            Config::staging_bytes_full_with(dimensions, config.read_bytes_max).min(most)
        };
        Ok(config)
    }

    fn collapse(&self) -> Result<Collapse, Failure> {
        let asked = &self.0;
        Ok(match asked.collapse {
            LNP_COLLAPSE_GAP if asked.gap_bytes == 0 => Collapse::Gap { bytes: GAP_BYTES_USUAL },
            LNP_COLLAPSE_GAP => Collapse::Gap { bytes: asked.gap_bytes },
            LNP_COLLAPSE_OFF => Collapse::Off,
            LNP_COLLAPSE_WHOLE => Collapse::Whole,
            LNP_COLLAPSE_LAW => {
                let combine = match asked.law_combine {
                    0 => Combine::Sum,
                    1 => Combine::Max,
                    _ => return Err(Failure::Setting("law_combine must be 0 or 1")),
                };
                let (t0, a, b) = (asked.law_t0_us, asked.law_a_us, asked.law_b_mib_s);
                let law = DeviceLaw::new(t0, a, b, combine);
                Collapse::Law(law.map_err(|_| {
                    Failure::Setting(
                        "law_t0_us and law_a_us must be 0 to 6e7, law_b_mib_s 0.001 to 2^30",
                    )
                })?)
            }
            _ => return Err(Failure::Setting("collapse must be one of LNP_COLLAPSE_...")),
        })
    }
}

fn policy(number: u32) -> Result<CachePolicy, Failure> {
    Ok(match number {
        LNP_CACHE_PINNED => CachePolicy::Pinned,
        LNP_CACHE_NONE => CachePolicy::None,
        LNP_CACHE_LRU => CachePolicy::Lru,
        LNP_CACHE_S3_FIFO => CachePolicy::S3Fifo,
        LNP_CACHE_LINKING_ALIGNED => CachePolicy::LinkingAligned,
        LNP_CACHE_PINNED_LINKING_ALIGNED => CachePolicy::PinnedLinkingAligned,
        LNP_CACHE_DECAYED_FREQUENCY => CachePolicy::DecayedFrequency,
        _ => return Err(Failure::Setting("cache_policy must be one of LNP_CACHE_...")),
    })
}

fn bytes(asked: u64) -> Result<usize, Failure> {
    usize::try_from(asked).map_err(|_| Failure::Setting("more bytes than this machine can address"))
}
