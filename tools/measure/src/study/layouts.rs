//! The orders of a study, made from its profiles.

use anyhow::Result;

use super::inputs::Learned;
use lnp_link::{Linking, Objective, Order, Part, Slots};

/// An order, and what it is made for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kind {
    /// Its order.
    pub order: Order,
    /// Share of the bundles that stand apart because a cache pins them; 0 for none.
    pub pin: f64,
    /// Bytes of a bundle that it is made for, where that matters.
    pub made_for: Option<u32>,
}

impl Kind {
    /// Every order with nothing pinned apart and with `pin`, as far as they differ: model order, random
    /// and frequency know no pinning, `miss` is `greedy` pinned, and copies and replicas are for what is missed.
    /// Orders that weigh device time are made for each of `objectives`.
    pub fn menu(orders: &[Order], pin: f64, objectives: &[u32]) -> Vec<Self> {
        let mut menu = Vec::new();
        for &order in orders {
            let pins = match order {
                Order::Identity | Order::Random { .. } | Order::Frequency | Order::Greedy => {
                    vec![0.0]
                }
                Order::Miss | Order::Copies { .. } | Order::Replicas { .. } => vec![pin],
                Order::Jaccard | Order::Bisect | Order::Refined if pin > 0.0 => vec![0.0, pin],
                Order::Jaccard | Order::Bisect | Order::Refined => vec![0.0],
            };
            for pin in pins {
                let kind = |made_for| Self { order, pin, made_for };
                if order.weighs_time() {
                    menu.extend(objectives.iter().map(|bytes| kind(Some(*bytes))));
                } else {
                    menu.push(kind(None));
                }
            }
        }
        menu
    }

    /// Its name in tables: `refined, apart, for 4 KiB`.
    pub fn name(&self) -> String {
        let apart = if self.pin > 0.0 { ", apart" } else { "" };
        let made_for = self
            .made_for
            .map_or(String::new(), |bytes| format!(", for {} KiB", f64::from(bytes) / 1024.0));
        format!("{}{apart}{made_for}", self.order)
    }

    /// Placements of a layer.
    pub fn placements(&self) -> usize {
        match self.order {
            Order::Replicas { placements } => placements,
            _ => 1,
        }
    }

    /// The order, made from a profile; `progress` as in [`Linking::link`].
    ///
    /// # Errors
    /// The profile cannot be read.
    pub fn make(
        &self,
        learned: &Learned,
        objective: &Objective,
        progress: &(impl Fn(u64) + Sync),
    ) -> Result<Layout> {
        let bundle_bytes = self.made_for.unwrap_or(objective.bundle_bytes);
        let objective = Objective { bundle_bytes, ..*objective };
        let linking = Linking { order: self.order, objective, pin: self.pin };
        let activity_of = |layer| learned.profile.activity(layer, Part::All);
        let links = linking.link(learned.profile.layers(), activity_of, progress)?;
        let slots = links.iter().map(|links| links.slots_of_neurons()).collect::<Result<_>>()?;
        Ok(Layout { slots })
    }
}

/// Where each neuron lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// By layer and placement.
    pub slots: Vec<Vec<Slots>>,
}

impl Layout {
    /// Flash that its bundles take, in times of what they take once.
    pub fn flash(&self) -> f64 {
        let slots: usize = self.slots.iter().flatten().map(Slots::slots).sum();
        let neurons = self.slots.iter().filter_map(|placements| placements.first());
        slots as f64 / neurons.map(|placed| placed.first().len()).sum::<usize>().max(1) as f64
    }

    /// Most slots of a placement.
    pub fn slots_max(&self) -> usize {
        self.slots.iter().flatten().map(Slots::slots).max().unwrap_or(0)
    }
}
