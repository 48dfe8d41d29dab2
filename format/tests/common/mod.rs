//! A small pack in memory, built with the writer's half of the crate. Shared with the engine's tests.
#![allow(dead_code, unreachable_pub)] // each test binary uses its part

pub mod predictor;

use lnp_format::checksum::crc32;
use lnp_format::codes::{
    INCOMPAT_COPIES, INCOMPAT_LAYER_ACTIVATIONS, INCOMPAT_PLACEHOLDER, WHOLE_PACK,
};
use lnp_format::layout::{
    SIDE_DOWN_NORM, SIDE_NEURON_BIAS, SIDE_OUTPUT_BIAS, SIDE_UP_BIAS, SectionEntry, Superblock,
};
use lnp_format::{Activation, Dtype, Pack, PredictorNumbers, SectionKind, Shape, write};
use predictor::PredictorRecipe;
use zerocopy::byteorder::{LE, U32};
use zerocopy::{FromBytes, IntoBytes};

/// What goes into the pack.
pub struct Recipe {
    pub shape: Shape,
    pub block_bytes: u32,
    /// Neuron of each slot, by layer: each neuron at least once.
    pub orders: Vec<Vec<u32>>,
    /// Further placements: for each, the neuron of each slot, one permutation per layer.
    pub replicas: Vec<Vec<Vec<u32>>>,
    pub biases: bool,
    /// With `biases`: biases of the up rows (three parts) and a norm before the down columns too.
    pub up_bias_and_norm: bool,
    /// By layer, its own activation with the threshold, where it has one; layers beyond the list have none.
    pub activations: Vec<Option<(Activation, f32)>>,
    /// Predictors: layer, horizon, the section's bytes; ascending.
    pub predictors: Vec<(u32, u32, Vec<u8>)>,
    pub provenance: &'static str,
}

impl Recipe {
    /// `layers` x `neurons` of f32, hidden 32, two parts, a different order in each layer.
    pub fn small(layers: u32, neurons: u32) -> Self {
        let shape = Shape {
            layers,
            neurons,
            hidden: 32,
            parts: 2,
            activation: Activation::Relu,
            activation_threshold: 0.0,
            dtype: Dtype::F32,
            bundle_stride: 256,
            slots: neurons,
        };
        let orders = (0..layers)
            .map(|layer| {
                // multiplying by an odd number that shares no factor with the count permutes
                let step =
                    (1..).map(|k| neurons / 2 + 1 + k).find(|s| gcd(*s, neurons) == 1).unwrap();
                let neuron = |slot| {
                    (u64::from(slot) * u64::from(step) + u64::from(layer)) % u64::from(neurons)
                };
                (0..neurons).map(|slot| neuron(slot) as u32).collect()
            })
            .collect();
        Self {
            shape,
            block_bytes: 512,
            orders,
            replicas: Vec::new(),
            biases: true,
            up_bias_and_norm: false,
            activations: Vec::new(),
            predictors: Vec::new(),
            provenance: "order=test\ntool=test\n",
        }
    }

    /// Placeholders of any size, which need not divide a block.
    pub fn placeholder(layers: u32, neurons: u32, bundle_stride: u32) -> Self {
        let mut recipe = Self::small(layers, neurons);
        recipe.shape.dtype = Dtype::Placeholder;
        recipe.shape.bundle_stride = bundle_stride;
        recipe.biases = false;
        recipe.block_bytes = 4096;
        recipe
    }

    /// The bundle of a neuron: f32 weights that name layer, neuron and place.
    pub fn bundle(&self, layer: u32, neuron: u32) -> Vec<u8> {
        let name = u64::from(layer) * 7919 + u64::from(neuron) * 104_729;
        let weight = |at: u32| ((name + u64::from(at) * 31) % 257) as f32 / 64.0 - 2.0;
        // Slices, not bytes one by one: a fuzzer's instrumentation counts every branch.
        let mut bytes = Vec::with_capacity(self.shape.bundle_stride as usize + 3);
        for at in 0..self.shape.bundle_stride.div_ceil(4) {
            bytes.extend_from_slice(&weight(at).to_le_bytes());
        }
        bytes.truncate(self.shape.bundle_stride as usize);
        bytes
    }

    /// The bundles of a layer, in this order.
    pub fn region(&self, layer: u32, order: &[u32]) -> Vec<u8> {
        let mut region = Vec::with_capacity(self.shape.region_bytes(self.shape.slots) as usize);
        for neuron in order {
            region.extend_from_slice(&self.bundle(layer, *neuron));
        }
        region
    }

    /// The checksums of the bundles of a region.
    pub fn checksums(&self, region: &[u8]) -> Vec<u8> {
        let mut sums = Vec::new();
        for bundle in region.chunks(self.shape.bundle_stride as usize) {
            sums.extend_from_slice(&crc32(bundle).to_le_bytes());
        }
        sums
    }

    /// Gives the pack further placements, each by another step through the neurons.
    pub fn with_replicas(mut self, count: u32) -> Self {
        let neurons = self.shape.neurons;
        self.replicas = (1..=count)
            .map(|replica| {
                let coprime = |step: &u32| gcd(*step, neurons) == 1;
                let step = (replica * 5..).find(coprime).unwrap();
                let order = |layer| (0..neurons).map(move |s| (s * step + layer) % neurons);
                (0..self.shape.layers).map(|layer| order(layer).collect()).collect()
            })
            .collect();
        self
    }

    /// Gives some neurons of each layer, of each placement, copies: every third of them a second slot somewhere, every sixth
    /// a third one at the end.
    pub fn with_copies(mut self) -> Self {
        for (number, order) in
            self.orders.iter_mut().chain(self.replicas.iter_mut().flatten()).enumerate()
        {
            let neurons = order.len();
            for id in (0..neurons as u32).step_by(3) {
                order.insert((id as usize * 7 + number) % order.len(), id);
            }
            order.extend((0..neurons as u32).step_by(6));
            self.shape.slots = self.shape.slots.max(order.len() as u32);
        }
        self
    }

    /// Gives each layer a predictor of its own kind, and layers from the second on one a layer ahead as well.
    pub fn with_predictors(mut self) -> Self {
        let (neurons, hidden) = (self.shape.neurons, self.shape.hidden);
        let numbers = |layer: u32| match layer % 4 {
            0 => PredictorNumbers::Q8_0,
            1 => PredictorNumbers::F16,
            2 => PredictorNumbers::Bits2,
            _ => PredictorNumbers::F32,
        };
        for layer in 0..self.shape.layers {
            let low_rank = PredictorRecipe::low_rank(numbers(layer), neurons, hidden, 32);
            let own = match layer % 3 {
                0 => low_rank,
                1 => PredictorRecipe {
                    by_neuron: true,
                    strength_scales: true,
                    ..PredictorRecipe::rows(numbers(layer), neurons, hidden)
                },
                _ => PredictorRecipe { relu_between: true, reduce_bias: true, ..low_rank },
            };
            self.predictors.push((layer, 0, own.build()));
            if layer > 0 {
                self.predictors.push((layer, 1, low_rank.build()));
            }
        }
        self
    }

    /// The order of a layer in each placement.
    fn placements(&self, layer: u32) -> impl Iterator<Item = (u32, &Vec<u32>)> {
        let all = std::iter::once(&self.orders).chain(&self.replicas);
        (0..).zip(all.map(move |orders| &orders[layer as usize]))
    }

    /// The pack's bytes.
    pub fn build(&self) -> Vec<u8> {
        let (neurons, layers) = (self.shape.neurons, self.shape.layers);
        let mut sections: Vec<(SectionEntry, Vec<u8>)> = Vec::new();
        let mut add = |kind, layer, placement, bytes: Vec<u8>| {
            sections.push((write::entry(kind, layer, placement, bytes.len() as u64), bytes));
        };
        add(SectionKind::ModelShape, WHOLE_PACK, 0, self.shape.to_disk().as_bytes().to_vec());
        add(SectionKind::Provenance, WHOLE_PACK, 0, self.provenance.into());
        for layer in 0..layers {
            for (placement, order) in self.placements(layer) {
                add(SectionKind::LinkIndex, layer, placement, self.link_index(order));
            }
        }
        for layer in 0..layers {
            let own = self.activations.get(layer as usize).copied().flatten();
            if self.biases || own.is_some() {
                let (mut arrays, mut eps, mut count) = (0, 0.0, 0);
                if self.biases {
                    arrays = SIDE_NEURON_BIAS | SIDE_OUTPUT_BIAS;
                    count = neurons + self.shape.hidden;
                }
                if self.up_bias_and_norm {
                    (arrays, eps) = (arrays | SIDE_UP_BIAS | SIDE_DOWN_NORM, 0.5);
                    count += 2 * neurons;
                }
                let mut bytes = write::side_data_header(arrays, eps, own).as_bytes().to_vec();
                for value in 0..count {
                    bytes.extend((value as f32 / 8.0 + layer as f32).to_le_bytes());
                }
                add(SectionKind::SideData, layer, 0, bytes);
            }
        }
        let mut regions = Vec::new();
        for layer in 0..layers {
            for (placement, order) in self.placements(layer) {
                let region = self.region(layer, order);
                add(SectionKind::BundleChecksums, layer, placement, self.checksums(&region));
                regions.push((layer, placement, region));
            }
        }
        for (layer, horizon, bytes) in &self.predictors {
            add(SectionKind::Predictor, *layer, *horizon, bytes.clone());
        }
        for (layer, placement, region) in regions {
            add(SectionKind::BundleRegion, layer, placement, region);
        }
        assemble(sections, self.block_bytes, self.features())
    }

    /// The incompatible feature bits.
    pub fn features(&self) -> u64 {
        let placeholder = self.shape.dtype == Dtype::Placeholder;
        let own = self.activations.iter().any(Option::is_some);
        u64::from(placeholder) * INCOMPAT_PLACEHOLDER
            + u64::from(own) * INCOMPAT_LAYER_ACTIVATIONS
            + u64::from(self.shape.has_copies()) * INCOMPAT_COPIES
    }

    /// The link index of an order.
    fn link_index(&self, order: &Vec<u32>) -> Vec<u8> {
        let (neurons, slots) = (self.shape.neurons, order.len() as u32);
        let mut slot_of_neuron = vec![0; neurons as usize];
        let mut next_slot = vec![0; order.len()];
        for (slot, neuron) in (0..slots).zip(order).rev() {
            next_slot[slot as usize] = slot_of_neuron[*neuron as usize];
            slot_of_neuron[*neuron as usize] = slot;
        }
        // two links where there is room for them
        let begins: Vec<u32> = if neurons > 1 { vec![0, 1, slots] } else { vec![0, slots] };
        let counts: Vec<u32> = (0..slots).map(|slot| slot % 5).collect();
        let stated = if self.shape.has_copies() { slots } else { 0 };
        let header = write::link_index_header(neurons, begins.len() as u32 - 1, 100, stated);
        let mut bytes = header.as_bytes().to_vec();
        if !self.shape.has_copies() {
            next_slot.clear();
        }
        for array in [&slot_of_neuron, order, &begins, &counts, &next_slot] {
            let words: Vec<U32<LE>> = array.iter().map(|word| U32::new(*word)).collect();
            bytes.extend(words.as_bytes());
        }
        bytes
    }
}

/// Puts sections where they belong and seals them.
pub fn assemble(
    sections: Vec<(SectionEntry, Vec<u8>)>,
    block_bytes: u32,
    features: u64,
) -> Vec<u8> {
    let (mut table, bodies): (Vec<_>, Vec<_>) = sections.into_iter().unzip();
    let bytes = write::place(&mut table, block_bytes).unwrap();
    let mut file = vec![0; bytes.file_bytes as usize];
    for (entry, body) in table.iter_mut().zip(&bodies) {
        entry.section_crc = U32::new(crc32(body));
        let begin = entry.offset.get() as usize;
        file[begin..begin + body.len()].copy_from_slice(body);
    }
    let superblock = write::seal(&table, bytes, block_bytes, features);
    file[..4096].copy_from_slice(superblock.as_bytes());
    file[4096..4096 + size_of_val(&table[..])].copy_from_slice(table.as_bytes());
    file
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Says that something was skipped, and why: on stdout, and in the file that `LNP_SKIP_LOG` names.
pub fn skipped(reason: &str) {
    println!("\nskipped: {reason}");
    if let Some(log) = std::env::var_os("LNP_SKIP_LOG") {
        use std::io::Write;
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        writeln!(log, "skipped: {reason}").unwrap();
    }
}

/// Changes the superblock and seals it again.
pub fn with_superblock(file: &[u8], change: impl FnOnce(&mut Superblock)) -> Vec<u8> {
    let mut file = file.to_vec();
    let (superblock, _) = Superblock::mut_from_prefix(&mut file).unwrap();
    change(superblock);
    write::reseal(superblock);
    file
}

/// Changes the section table and seals it again.
pub fn with_table(file: &[u8], change: impl FnOnce(&mut [SectionEntry])) -> Vec<u8> {
    let mut file = file.to_vec();
    let count = Superblock::ref_from_prefix(&file).unwrap().0.section_count.get() as usize;
    let table = &mut file[4096..4096 + 48 * count];
    change(<[SectionEntry]>::mut_from_bytes(table).unwrap());
    let crc = crc32(table);
    with_superblock(&file, |superblock| superblock.section_table_crc = U32::new(crc))
}

/// Changes the first section of a kind and seals everything again.
pub fn with_section(file: &[u8], kind: SectionKind, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let pack = Pack::parse(file, file.len() as u64).unwrap();
    let at = pack.sections().iter().position(|e| e.kind.get() == kind.code()).unwrap();
    with_section_at(file, at, change)
}

/// The same with the last section of a kind.
pub fn with_last(file: &[u8], kind: SectionKind, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let pack = Pack::parse(file, file.len() as u64).unwrap();
    let at = pack.sections().iter().rposition(|e| e.kind.get() == kind.code()).unwrap();
    with_section_at(file, at, change)
}

fn with_section_at(file: &[u8], at: usize, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let entry = Pack::parse(file, file.len() as u64).unwrap().sections()[at];
    let mut file = file.to_vec();
    let begin = entry.offset.get() as usize;
    let body = &mut file[begin..begin + entry.bytes.get() as usize];
    change(body);
    let crc = crc32(body);
    with_table(&file, |table| table[at].section_crc = U32::new(crc))
}
