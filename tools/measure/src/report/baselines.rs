//! What packs are compared with: the model's order, a random one, and that by frequency, as packs that nobody wrote, with
//! bundles of the same length and the same counts for the cache.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use anyhow::Result;
use lnp_format::Pack;
use lnp_link::{LayerActivity, LayerLinks, Links, Order, link_layer};
use lnp_pack::recipe::ModelSize;
use lnp_pack::{PackIndex, Recipe};

/// One pack of each order that none of `packs` has, of the size of the first of them.
pub(super) fn baselines(packs: &[PackIndex], layers: usize) -> Result<Vec<PackIndex>> {
    let Some(first) = packs.first() else { return Ok(Vec::new()) };
    let pack = first.pack()?;
    let mut orders = vec![Order::Identity, Order::Random { seed: Order::SEED_DEFAULT }];
    // Without a profile nobody knows what is frequent.
    if pack.layers().any(|layer| layer.profile_tokens() > 0) {
        orders.push(Order::Frequency);
    }
    for index in packs {
        let of_pack = index.pack()?.provenance().order().to_owned();
        orders.retain(|order| order.name() != of_pack);
    }
    orders.into_iter().map(|order| baseline(&pack, layers, order)).collect()
}

fn baseline(pack: &Pack<'_>, layers: usize, order: Order) -> Result<PackIndex> {
    let neurons = pack.shape().neurons as usize;
    let mut profile_tokens = 0;
    let of_layer = |(number, layer): (usize, lnp_format::Layer<'_>)| -> Result<LayerLinks> {
        let mut active_count = vec![0; neurons];
        for (id, count) in layer.neuron_of_slot().iter().zip(layer.active_count()) {
            active_count[id.get() as usize] = count.get();
        }
        let mut neuron_of_slot: Vec<u32> = (0..neurons as u32).collect();
        match order {
            Order::Frequency => {
                neuron_of_slot.sort_by_key(|id| Reverse(active_count[*id as usize]));
            }
            Order::Random { .. } => {
                let nothing = LayerActivity::from_bits(neurons, &[])?;
                neuron_of_slot = link_layer(order, number, &nothing)?.neuron_of_slot;
            }
            _ => {}
        }
        profile_tokens = layer.profile_tokens();
        let link_begin = (0..=neurons as u32).collect();
        Ok(LayerLinks { neuron_of_slot, link_begin, active_count, further: Vec::new() })
    };
    let linked =
        pack.layers().take(layers).enumerate().map(of_layer).collect::<Result<Vec<_>>>()?;
    let links = Links {
        order,
        neurons,
        profile_tokens,
        corpora: Vec::new(),
        model: pack.provenance().value("model").unwrap_or_default().to_owned(),
        traces: Vec::new(),
        tool: Links::this_tool(),
        notes: BTreeMap::new(),
        layers: linked,
    };
    let (size, stride) = (ModelSize::of_links(&links), pack.shape().bundle_stride);
    let layout = Recipe::for_placeholders(Some(&links), size, stride, 1)?.layout()?;
    Ok(PackIndex::in_memory(order.name().into(), layout.index, layout.bytes.file_bytes))
}
