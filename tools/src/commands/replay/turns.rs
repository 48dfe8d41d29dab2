//! How long strategies read in a row.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use lnp_common::report::{say, shown};
use lnp_measure::profile::DeviceProfile;
use lnp_measure::replay::{TURN_TOKENS, sustained};

use super::Args;

/// How long strategies read in a row, and why.
pub(super) enum Turns {
    /// Turns of tokens, the usual ones.
    Tokens,
    /// Turns of seconds, as `--turn` says.
    Asked(Duration),
    /// Turns of seconds, since the device profile says that the device does not keep up its bursts.
    HeldBack(Duration, PathBuf),
}

impl Turns {
    pub(super) fn of(args: &Args) -> Result<Self> {
        if args.simulate {
            return Ok(Self::Tokens);
        }
        if let Some(seconds) = args.turn {
            let asked = Self::Asked(Duration::from_secs_f64(seconds));
            return Ok(if seconds > 0.0 { asked } else { Self::Tokens });
        }
        let Some(device) = &args.device else { return Ok(Self::Tokens) };
        let held_back = DeviceProfile::read(device)?.fit.is_some_and(|fit| fit.sustained);
        let long = || Self::HeldBack(sustained::TURN, device.clone());
        Ok(if held_back { long() } else { Self::Tokens })
    }

    pub(super) fn seconds(&self) -> Option<Duration> {
        match self {
            Self::Tokens => None,
            Self::Asked(turn) | Self::HeldBack(turn, _) => Some(*turn),
        }
    }

    /// Says it where it is not what was asked for.
    pub(super) fn say(&self) {
        if let Self::HeldBack(turn, device) = self {
            say(&format!(
                "lnp: {} says that the device is held back: each strategy reads for {} s in a row, not in \
                 turns of {} tokens (--turn 0 for those)\n",
                shown(device),
                turn.as_secs_f64(),
                TURN_TOKENS
            ));
        }
    }

    pub(super) fn json(&self) -> serde_json::Value {
        let because = match self {
            Self::Tokens => "a device that keeps up its bursts, as far as is known",
            Self::Asked(_) => "--turn",
            Self::HeldBack(..) => "the device profile: the device is held back",
        };
        let seconds = self.seconds().map(|turn| turn.as_secs_f64());
        serde_json::json!({
            "seconds": seconds,
            "tokens": if seconds.is_none() { Some(TURN_TOKENS) } else { None },
            "because": because,
        })
    }
}
