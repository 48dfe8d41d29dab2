//! Valid packs of any shape, and what they have to say of themselves.

use arbitrary::Arbitrary;
use lnp_format::checksum::crc32;
use lnp_format::codes::WHOLE_PACK;
use lnp_format::layout::{
    SIDE_DOWN_NORM, SIDE_NEURON_BIAS, SIDE_OUTPUT_BIAS, SIDE_UP_BIAS, SectionEntry,
};
use lnp_format::limits::POINTS_MAX;
use lnp_format::{
    Activation, Dtype, Pack, PredictorBody, PredictorNumbers, SectionKind, Shape, write,
};
use zerocopy::IntoBytes;

use crate::packs::predictor::PredictorRecipe;
use crate::packs::{Recipe, assemble};
use crate::pick;

/// Of norms before down columns.
const NORM_EPS: f32 = 1e-5;

/// What a pack is made from.
#[derive(Arbitrary, Debug)]
pub(super) struct Made {
    layers: u8,
    neurons: u8,
    hidden: u8,
    gated: bool,
    dtype: u8,
    activation: u8,
    threshold: u16,
    /// Bundle of a placeholder, bytes.
    stride: u16,
    block: u8,
    /// Further placements, in the lower bits; copies in the upper four.
    replicas: u8,
    side: u8,
    provenance: u8,
    seed: u64,
    tokens: u64,
    /// Slots of each link; the last has the rest.
    links: [u8; 4],
    /// Sections of kinds that this version does not know.
    unknown: [Option<(u8, u8)>; 2],
    predictors: [Option<MadePredictor>; 3],
    /// Bytes of resident weights, where there are some: whatever they are, a pack's reader leaves them alone.
    resident: Option<u8>,
}

/// A predictor, in few bytes.
#[derive(Arbitrary, Debug)]
struct MadePredictor {
    layer: u8,
    horizon: u8,
    numbers: u8,
    /// Of a low-rank one; rows where it is 0.
    rank: u8,
    points: u8,
    by_neuron: bool,
    relu_between: bool,
    reduce_bias: bool,
    strength_scales: bool,
}

impl MadePredictor {
    /// Its layer, its horizon, and what it is made from.
    fn recipe(&self, shape: &Shape) -> (u32, u32, PredictorRecipe) {
        let numbers = PredictorNumbers::TABLE;
        let (code, _) = numbers[usize::from(self.numbers) % numbers.len()];
        let numbers = PredictorNumbers::from_code(code).expect("one of the table");
        let layer = u32::from(self.layer) % shape.layers;
        let recipe = match u32::from(self.rank % 3) {
            0 => PredictorRecipe::rows(numbers, shape.neurons, shape.hidden),
            steps => PredictorRecipe {
                relu_between: self.relu_between,
                reduce_bias: self.reduce_bias,
                ..PredictorRecipe::low_rank(numbers, shape.neurons, shape.hidden, 32 * steps)
            },
        };
        let points = u32::from(self.points) % POINTS_MAX + 1;
        let recipe = PredictorRecipe {
            points,
            by_neuron: self.by_neuron,
            strength_scales: self.strength_scales,
            ..recipe
        };
        (layer, u32::from(self.horizon) % (layer + 1), recipe)
    }
}

/// A pack's bytes, and the arrays that went into it.
pub(super) struct Built {
    pub(super) file: Vec<u8>,
    recipe: Recipe,
    tokens: u64,
    side: u32,
    /// By layer and placement.
    links: Vec<Vec<Links>>,
    predictors: Vec<(u32, u32, PredictorRecipe)>,
    resident: Option<u8>,
}

/// What resident weights are made of.
const RESIDENT_BYTE: u8 = 0xa5;

struct Links {
    order: Vec<u32>,
    begins: Vec<u32>,
    counts: Vec<u32>,
}

/// An order by a seed: splitmix64 and Fisher-Yates.
fn shuffled(neurons: u32, seed: &mut u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..neurons).collect();
    for at in (1..order.len()).rev() {
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        order.swap(at, (mixed >> 32) as usize % (at + 1));
    }
    order
}

fn words(values: &[u32]) -> impl Iterator<Item = u8> {
    values.iter().flat_map(|value| value.to_le_bytes())
}

impl Made {
    fn shape(&self) -> Shape {
        let dtypes = [
            Dtype::F32,
            Dtype::F16,
            Dtype::Bf16,
            Dtype::Q8_0,
            Dtype::Q4_0,
            Dtype::Placeholder,
            Dtype::Placeholder,
        ];
        let activations = [
            Activation::Relu,
            Activation::Fatrelu,
            Activation::Relu2,
            Activation::Silu,
            Activation::Gelu,
            Activation::Drelu,
            Activation::GeluTanh,
            Activation::GaussianTopk,
        ];
        let mut shape = Recipe::small(1, 1).shape;
        shape.layers = u32::from(self.layers % 3) + 1;
        shape.neurons = u32::from(self.neurons % 20) + 1;
        shape.hidden = 32 * (u32::from(self.hidden % 2) + 1);
        shape.parts = if self.gated { 3 } else { 2 };
        shape.dtype = pick(&dtypes, self.dtype);
        shape.activation = pick(&activations, self.activation);
        shape.activation_threshold = self.threshold_of(shape.activation);
        shape.bundle_stride = match shape.dtype {
            Dtype::Placeholder => u32::from(self.stride % 2000) + 1,
            _ => shape.parts * shape.part_bytes(),
        };
        shape
    }

    /// A threshold that may stand beside an activation.
    fn threshold_of(&self, activation: Activation) -> f32 {
        match activation {
            Activation::Fatrelu => f32::from(self.threshold) / 8.0,
            Activation::GaussianTopk => f32::from(self.threshold) / 8.0 - 9.0,
            _ => 0.0,
        }
    }

    /// The activations that layers have of their own.
    fn own_activations(&self, shape: &Shape) -> Vec<Option<(Activation, f32)>> {
        let all = [Activation::Relu, Activation::Fatrelu, Activation::GaussianTopk];
        let own = |layer: u32| {
            let choice = self.side.rotate_left(layer) / 16;
            let activation = *all.get(usize::from(choice % 8))?;
            Some((activation, self.threshold_of(activation)))
        };
        (0..shape.layers).map(own).collect()
    }

    fn links(&self, order: Vec<u32>, turn: usize) -> Links {
        let neurons = order.len() as u32;
        let mut begins = vec![0];
        for at in 0..self.links.len() {
            let slots = u32::from(self.links[(at + turn) % self.links.len()]) % neurons + 1;
            let begin = begins[at] + slots;
            if begin >= neurons {
                break;
            }
            begins.push(begin);
        }
        begins.push(neurons);
        let most = self.tokens.min(u32::MAX.into()) as u32;
        let counts = (0..neurons).map(|slot| most - most.min(slot * 3)).collect();
        Links { order, begins, counts }
    }

    /// Makes the pack.
    pub(super) fn build(&self) -> Built {
        let shape = self.shape();
        let mut recipe = Recipe::small(shape.layers, shape.neurons);
        (recipe.shape, recipe.block_bytes) = (shape, 512 << (self.block % 4));
        recipe.activations = self.own_activations(&shape);
        let texts = [
            "order=test\ntool=test\n",
            "order=\ntool=\n",
            "neurons.real=5\norder=greedy\nsource.sha256=00\ntool=lnp \u{e9}=\n",
        ];
        recipe.provenance = pick(&texts, self.provenance);
        let placements = usize::from(self.replicas % 3) + 1;
        let mut seed = self.seed;
        let layer = |_| {
            let place = |turn| {
                let mut order = shuffled(shape.neurons, &mut seed);
                // Copies of the first few, each at another place.
                for copy in 0..u32::from(self.replicas / 16) {
                    let (id, step) = (copy * 3 % shape.neurons, copy as usize * 5);
                    order.insert((step + turn) % (order.len() + 1), id);
                }
                self.links(order, turn)
            };
            (0..placements).map(place).collect()
        };
        let links: Vec<Vec<Links>> = (0..shape.layers).map(layer).collect();
        recipe.shape.slots = shape.neurons + u32::from(self.replicas / 16);
        let shape = recipe.shape;
        let side = u32::from(self.side % 16);
        let side = if shape.parts == 3 { side } else { side & !SIDE_UP_BIAS };
        let mut predictors: Vec<_> =
            self.predictors.iter().flatten().map(|made| made.recipe(&shape)).collect();
        predictors.retain(|_| shape.dtype != Dtype::Placeholder);
        predictors.sort_by_key(|(layer, horizon, _)| (*layer, *horizon));
        predictors.dedup_by_key(|(layer, horizon, _)| (*layer, *horizon));
        let (file, tokens) = (Vec::new(), self.tokens);
        let resident = self.resident;
        let mut built = Built { file, recipe, tokens, side, links, predictors, resident };
        built.file = self.assemble(&built);
        built
    }

    fn assemble(&self, built: &Built) -> Vec<u8> {
        let (recipe, shape) = (&built.recipe, &built.recipe.shape);
        let mut sections: Vec<(SectionEntry, Vec<u8>)> = Vec::new();
        let mut add = |kind, layer, placement, bytes: Vec<u8>| {
            sections.push((write::entry(kind, layer, placement, bytes.len() as u64), bytes));
        };
        add(SectionKind::ModelShape, WHOLE_PACK, 0, shape.to_disk().as_bytes().to_vec());
        add(SectionKind::Provenance, WHOLE_PACK, 0, recipe.provenance.into());
        for (layer, placements) in (0..).zip(&built.links) {
            if built.side != 0 || recipe.activations[layer as usize].is_some() {
                add(SectionKind::SideData, layer, 0, built.side_data(layer));
            }
            for (placement, links) in (0..).zip(placements) {
                let section = links.section(shape, built.tokens);
                add(SectionKind::LinkIndex, layer, placement, section);
                let region = recipe.region(layer, &links.order);
                add(SectionKind::BundleChecksums, layer, placement, recipe.checksums(&region));
                add(SectionKind::BundleRegion, layer, placement, region);
            }
        }
        for (layer, horizon, predictor) in &built.predictors {
            add(SectionKind::Predictor, *layer, *horizon, predictor.build());
        }
        if let Some(bytes) = built.resident {
            add(SectionKind::Resident, WHOLE_PACK, 0, vec![RESIDENT_BYTE; bytes.into()]);
        }
        for (kind, bytes) in self.unknown.iter().flatten() {
            let mut entry =
                write::entry(SectionKind::Provenance, u32::from(kind % 5), 0, (*bytes).into());
            // Of the index from 7 on, bulk from 258 on.
            entry.kind.set(if kind % 2 == 0 { 7 } else { 258 } + u32::from(kind / 2));
            sections.push((entry, vec![*kind; (*bytes).into()]));
        }
        let key =
            |entry: &SectionEntry| (entry.kind.get(), entry.layer.get(), entry.placement.get());
        sections.sort_by_key(|(entry, _)| key(entry));
        sections.dedup_by_key(|(entry, _)| key(entry));
        assemble(sections, recipe.block_bytes, recipe.features())
    }
}

impl Links {
    /// The `link_index` section.
    fn section(&self, shape: &Shape, tokens: u64) -> Vec<u8> {
        let links = self.begins.len() as u32 - 1;
        let (slots, next_slots) = match shape.has_copies() {
            false => (0, Vec::new()),
            true => (self.order.len() as u32, self.next_slots()),
        };
        let header = write::link_index_header(shape.neurons, links, tokens, slots);
        let arrays = [&self.slots(shape), &self.order, &self.begins, &self.counts, &next_slots];
        let arrays = arrays.into_iter().flat_map(|array| words(array));
        header.as_bytes().iter().copied().chain(arrays).collect()
    }

    /// The first slot of each neuron.
    fn slots(&self, shape: &Shape) -> Vec<u32> {
        let mut slots = vec![0; shape.neurons as usize];
        for (slot, neuron) in self.order.iter().enumerate().rev() {
            slots[*neuron as usize] = slot as u32;
        }
        slots
    }

    /// The next slot with the same neuron, 0 for none.
    fn next_slots(&self) -> Vec<u32> {
        let next = |(slot, neuron): (usize, &u32)| {
            let later = self.order.iter().enumerate().skip(slot + 1);
            later.filter(|(_, other)| *other == neuron).map(|(slot, _)| slot as u32).next()
        };
        self.order.iter().enumerate().map(|at| next(at).unwrap_or(0)).collect()
    }
}

impl Built {
    fn neuron_bias(&self, layer: u32) -> Vec<f32> {
        let neurons = if self.side & SIDE_NEURON_BIAS == 0 { 0 } else { self.recipe.shape.neurons };
        (0..neurons).map(|neuron| neuron as f32 / 8.0 - layer as f32).collect()
    }

    fn output_bias(&self, layer: u32) -> Vec<f32> {
        let hidden = if self.side & SIDE_OUTPUT_BIAS == 0 { 0 } else { self.recipe.shape.hidden };
        (0..hidden).map(|at| (layer * 100 + at) as f32).collect()
    }

    fn up_bias(&self, layer: u32) -> Vec<f32> {
        let neurons = if self.side & SIDE_UP_BIAS == 0 { 0 } else { self.recipe.shape.neurons };
        (0..neurons).map(|neuron| neuron as f32 / 4.0 + layer as f32).collect()
    }

    fn down_norm(&self) -> Vec<f32> {
        let neurons = if self.side & SIDE_DOWN_NORM == 0 { 0 } else { self.recipe.shape.neurons };
        (0..neurons).map(|neuron| 1.0 + neuron as f32 / 16.0).collect()
    }

    fn side_data(&self, layer: u32) -> Vec<u8> {
        let eps = if self.side & SIDE_DOWN_NORM == 0 { 0.0 } else { NORM_EPS };
        let own = self.recipe.activations[layer as usize];
        let header = write::side_data_header(self.side, eps, own);
        let values = self.neuron_bias(layer).into_iter().chain(self.output_bias(layer));
        let values = values.chain(self.up_bias(layer)).chain(self.down_norm());
        header.as_bytes().iter().copied().chain(values.flat_map(f32::to_le_bytes)).collect()
    }

    fn compare_predictors(&self, pack: &Pack<'_>) {
        let places = self.predictors.iter().map(|(layer, horizon, _)| (*layer, *horizon));
        assert!(pack.predictors().map(|(layer, horizon, _)| (layer, horizon)).eq(places));
        for (layer, horizon, recipe) in &self.predictors {
            let predictor = pack.predictor(*layer, *horizon).expect("there is one");
            assert_eq!(predictor.numbers(), recipe.numbers);
            assert_eq!(predictor.relu_between(), recipe.relu_between);
            assert_eq!(predictor.by_neuron(), recipe.by_neuron && recipe.points > 1);
            assert_eq!(predictor.points().len(), recipe.points as usize);
            let section = recipe.build();
            let tail = match predictor.body() {
                PredictorBody::Rows(rows) => rows,
                PredictorBody::LowRank { rank, reduce, expand, .. } => {
                    assert_eq!(rank, recipe.rank);
                    assert!(section[..section.len() - expand.len()].ends_with(reduce));
                    expand
                }
            };
            assert!(section.ends_with(tail));
        }
    }

    /// Every accessor gives what went in.
    pub(super) fn compare(&self, pack: &Pack<'_>) {
        let (recipe, shape) = (&self.recipe, &self.recipe.shape);
        assert_eq!((pack.shape(), pack.block_bytes()), (shape, recipe.block_bytes));
        assert_eq!(pack.placements() as usize, self.links[0].len());
        let text: String =
            pack.provenance().entries().map(|(key, value)| format!("{key}={value}\n")).collect();
        assert_eq!(text, recipe.provenance);
        self.compare_predictors(pack);
        let resident = pack
            .resident()
            .map(|(offset, bytes)| &self.file[offset as usize..(offset + bytes) as usize]);
        assert_eq!(
            resident,
            self.resident.map(|bytes| vec![RESIDENT_BYTE; bytes.into()]).as_deref()
        );
        for (number, placements) in (0..).zip(&self.links) {
            for (placement, links) in (0..).zip(placements) {
                let layer = pack.placement(number, placement).expect("there is one");
                let values = |found: &[zerocopy::byteorder::U32<zerocopy::byteorder::LE>]| {
                    found.iter().map(|value| value.get()).collect::<Vec<u32>>()
                };
                let of_shape = (shape.activation, shape.activation_threshold);
                let own = recipe.activations[number as usize].unwrap_or(of_shape);
                assert_eq!(layer.activation(), own);
                assert_eq!(values(layer.neuron_of_slot()), links.order);
                assert_eq!(values(layer.slot_of_neuron()), links.slots(shape));
                assert_eq!(values(layer.link_begin()), links.begins);
                assert_eq!(values(layer.active_count()), links.counts);
                assert_eq!(layer.links() as usize, links.begins.len() - 1);
                assert_eq!(layer.profile_tokens(), self.tokens);
                let biases = layer.neuron_bias().iter().map(|bias| bias.get());
                assert!(biases.eq(self.neuron_bias(number)));
                let biases = layer.output_bias().iter().map(|bias| bias.get());
                assert!(biases.eq(self.output_bias(number)));
                let biases = layer.up_bias().iter().map(|bias| bias.get());
                assert!(biases.eq(self.up_bias(number)));
                let (weights, eps) = layer.down_norm().unwrap_or_default();
                assert!(weights.iter().map(|weight| weight.get()).eq(self.down_norm()));
                assert_eq!(eps, if weights.is_empty() { 0.0 } else { NORM_EPS });
                for (slot, neuron) in links.order.iter().enumerate() {
                    let bundle = recipe.bundle(number, *neuron);
                    let begin = layer.region_offset() as usize + slot * bundle.len();
                    assert_eq!(self.file[begin..begin + bundle.len()], bundle);
                    assert_eq!(layer.bundle_checksums()[slot].get(), crc32(&bundle));
                }
            }
        }
    }
}
