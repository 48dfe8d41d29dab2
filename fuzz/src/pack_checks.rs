//! What the docs of `lnp-format` promise of any bytes that are taken for a pack.

use lnp_engine::plan::{Extent, Geometry, Plan, plan, runs, scratch_len};
use lnp_engine::predictors::Predictors;
use lnp_engine::{Collapse, Combine, Config, DeviceLaw, required_bytes};
use lnp_format::read::check_superblock;
use lnp_format::{FormatError, Layer, Pack, Predictor, PredictorBody, SectionKind, Shape};

/// Whether `data` is (the beginning of) a pack of `file_bytes`; if so, that every promise holds.
pub fn check(data: &[u8], file_bytes: u64) -> bool {
    match check_superblock(data, file_bytes) {
        Ok(superblock) => {
            assert_eq!(superblock.file_bytes.get(), file_bytes);
            assert!(superblock.index_bytes.get() <= file_bytes);
        }
        Err(error) => told(&error),
    }
    let found = Pack::parse(data, file_bytes);
    match &found {
        Ok(pack) => check_pack(pack, data, file_bytes),
        Err(error) => told(error),
    }
    found.is_ok()
}

/// An error can be told to a person.
fn told(error: &FormatError) {
    assert!(!error.to_string().is_empty());
}

/// Evaluating a predictor ends, whatever its numbers are, and names neurons of its layer.
fn check_predictor(predictor: &Predictor<'_>, shape: &Shape) {
    let features = lnp_engine::sys::cpu::detect();
    let rank = match predictor.body() {
        PredictorBody::LowRank { rank, .. } => rank,
        PredictorBody::Rows(_) => 0,
    };
    let needed = Predictors::required_bytes(shape, rank, features, 2).expect("two tokens");
    let mut memory = vec![0; needed];
    let mut predictors =
        Predictors::new(shape, rank, features, 2, &mut memory).expect("memory of that length");
    let x: Vec<f32> = (0..2 * shape.hidden).map(|at| (at % 7) as f32 - 3.0).collect();
    for quality in [0.0, 0.5, f32::NAN] {
        let predicted = predictors.predict_by(predictor, quality, &x).expect("two tokens");
        assert_eq!(predicted.sets().len(), 2);
        for set in predicted.sets() {
            assert!(
                set.is_sorted_by(|a, b| a < b) && set.last().is_none_or(|id| *id < shape.neurons)
            );
        }
    }
}

fn check_pack(pack: &Pack<'_>, data: &[u8], file_bytes: u64) {
    let index_bytes = pack.superblock().index_bytes.get();
    assert!(index_bytes <= data.len() as u64);
    // The index alone is enough, and one byte less is too little.
    let index = &data[..index_bytes as usize];
    assert!(Pack::parse(index, file_bytes).is_ok());
    assert!(Pack::parse(&index[..index.len() - 1], file_bytes).is_err());

    let block = u64::from(pack.block_bytes());
    let mut end = 0;
    for entry in pack.sections() {
        assert!(entry.offset.get() >= end && entry.offset.get().is_multiple_of(block));
        end = entry.offset.get() + entry.bytes.get();
        assert!(end <= file_bytes);
        let _ = SectionKind::from_code(entry.kind.get());
    }
    for (key, value) in pack.provenance().entries() {
        assert_eq!(pack.provenance().value(key), Some(value));
    }
    assert!(!pack.provenance().order().contains('\n'));

    let shape = pack.shape();
    assert_eq!(pack.is_placeholder(), shape.part_bytes() == 0);
    if !pack.is_placeholder() {
        assert_eq!(shape.bundle_stride, shape.parts * shape.part_bytes());
    }
    assert!(shape.bundles() <= u32::MAX.into());
    assert_eq!(pack.layers().count(), shape.layers as usize);
    assert!(pack.layer(shape.layers).is_none() && pack.layer(u32::MAX).is_none());
    for (layer, horizon, predictor) in pack.predictors() {
        assert!(!pack.is_placeholder() && layer < shape.layers && horizon <= layer);
        let points = predictor.points();
        assert!(points.windows(2).all(|pair| pair[0].quality.get() < pair[1].quality.get()));
        for point in 0..points.len() {
            assert_eq!(predictor.offsets(point).len(), shape.neurons as usize);
        }
        check_predictor(&predictor, shape);
        let row = |columns: u32| predictor.numbers().row_bytes(columns.into()) as usize;
        let (neurons, hidden) = (shape.neurons as usize, shape.hidden);
        assert!([0, neurons].contains(&predictor.strength_scales().len()));
        match predictor.body() {
            PredictorBody::Rows(rows) => assert_eq!(rows.len(), neurons * row(hidden)),
            PredictorBody::LowRank { rank, reduce, expand, reduce_bias } => {
                assert_eq!(
                    (reduce.len(), expand.len()),
                    (rank as usize * row(hidden), neurons * row(rank))
                );
                assert!(reduce_bias.is_empty() || reduce_bias.len() == rank as usize);
            }
        }
    }
    // The last bytes, which no rule is about where bundles are there, choose the active sets.
    let mut choices = data.iter().rev().copied();
    assert!(pack.placements() >= 1 && pack.placement(0, pack.placements()).is_none());
    for number in 0..shape.layers {
        for placement in 0..pack.placements() {
            let layer = pack.placement(number, placement).expect("there is one");
            check_layer(pack, &layer, file_bytes);
            if placement == 0 {
                check_plans(pack, &layer, &mut choices);
            }
        }
    }
    check_config(pack, &mut choices);
}

fn check_layer(pack: &Pack<'_>, layer: &Layer<'_>, file_bytes: u64) {
    let shape = pack.shape();
    let neurons = shape.neurons as usize;
    let (firsts, ids) = (layer.slot_of_neuron(), layer.neuron_of_slot());
    let slots = layer.slots() as usize;
    assert_eq!((firsts.len(), ids.len()), (neurons, slots));
    assert!((shape.neurons..=shape.slots).contains(&layer.slots()));
    // Each slot is that of its neuron, once.
    let mut visits = vec![0_u8; slots];
    for neuron in 0..shape.neurons {
        let mut last = None;
        for slot in layer.slots_of(neuron) {
            assert_eq!(ids[slot as usize].get(), neuron);
            assert!(last < Some(slot));
            assert_eq!(layer.checksum(neuron), Some(layer.bundle_checksums()[slot as usize].get()));
            visits[slot as usize] += 1;
            last = Some(slot);
        }
        assert_eq!(layer.slots_of(neuron).next(), Some(firsts[neuron as usize].get()));
    }
    assert!(visits.iter().all(|visits| *visits == 1));
    assert_eq!(layer.slots_of(shape.neurons).next(), None);
    let begins = layer.link_begin();
    assert_eq!(begins.len(), layer.links() as usize + 1);
    assert_eq!(begins[0].get(), 0);
    assert_eq!(begins[begins.len() - 1].get(), layer.slots());
    assert!(begins.windows(2).all(|pair| pair[0].get() < pair[1].get()));
    assert_eq!(layer.active_count().len(), slots);
    let tokens = layer.profile_tokens();
    assert!(layer.active_count().iter().all(|count| u64::from(count.get()) <= tokens));
    assert_eq!(layer.bundle_checksums().len(), slots);
    assert!([0, neurons].contains(&layer.neuron_bias().len()));
    assert!([0, shape.hidden as usize].contains(&layer.output_bias().len()));
    assert!([0, neurons].contains(&layer.up_bias().len()));
    let (weights, eps) = layer.down_norm().unwrap_or((&[], 1.0));
    assert!([0, neurons].contains(&weights.len()) && eps.is_finite() && eps >= 0.0);
    assert_eq!(layer.region_bytes(), shape.region_bytes(layer.slots()));
    assert!(layer.region_offset().is_multiple_of(pack.block_bytes().into()));
    assert!(layer.region_offset() + layer.region_bytes() <= file_bytes);
}

/// Plans the reads of an active set drawn from `choices`, with each way to collapse.
fn check_plans(pack: &Pack<'_>, layer: &Layer<'_>, choices: &mut impl Iterator<Item = u8>) {
    let numbers: Vec<u32> = (0..layer.slots()).collect();
    let mut slots: Vec<u32> = numbers
        .chunks(8)
        .zip(&mut *choices)
        .flat_map(|(eight, bits)| {
            (0..8).zip(eight).filter(move |(bit, _)| bits >> bit & 1 == 1).map(|(_, slot)| *slot)
        })
        .collect();
    slots.sort_unstable();
    let geometry = Geometry { slots: layer.slots(), ..Config::new(pack).geometry(pack) };
    let mut number = || u32::from(choices.next().unwrap_or(8));
    // From nothing to far beyond any layer.
    let gap = 1_u64.checked_shl(number() % 70).unwrap_or(u64::MAX);
    let (a_us, b_mib_s) = (f64::from(number()) / 4.0, f64::from(1 + number()) * 16.0);
    let law = |combine| DeviceLaw::new(5.0, a_us, b_mib_s, combine).map(Collapse::Law);
    let collapses = [
        Ok(Collapse::Off),
        Ok(Collapse::Gap { bytes: gap }),
        law(Combine::Sum),
        law(Combine::Max),
        Ok(Collapse::Whole),
    ];
    let mut plain = None;
    for collapse in collapses {
        let collapse = collapse.expect("laws within their limits");
        let found = check_plan(&slots, &geometry, &collapse);
        assert_eq!(found.runs, runs(&slots));
        // Merging never makes fewer bytes, but for a block that a cut reads twice. Nor more reads, but
        // for the whole layer, which may take several, and where one more read saves such a block.
        let plain = plain.get_or_insert(found);
        let shared = plain.extents as u64 * u64::from(geometry.block_bytes);
        assert!(found.bytes + shared >= plain.bytes);
        let merges_only = matches!(collapse, Collapse::Off | Collapse::Gap { .. });
        assert!(found.extents <= plain.extents || !merges_only);
    }
}

/// One plan: block-aligned, ascending, at most a block shared, within the region, one after the other in staging,
/// and around every slot asked for.
fn check_plan(slots: &[u32], geometry: &Geometry, collapse: &Collapse) -> Plan {
    let mut extents = vec![Extent::default(); slots.len().max(geometry.slots as usize)];
    let mut scratch = vec![0; scratch_len(slots.len())];
    let found = plan(slots, geometry, collapse, &mut extents, &mut scratch);
    let extents = &extents[..found.extents];
    let (block, stride) = (u64::from(geometry.block_bytes), u64::from(geometry.bundle_stride));
    let region = (u64::from(geometry.slots) * stride).next_multiple_of(block);
    let (mut staged, mut end, mut next) = (0, 0, 0);
    for extent in extents {
        assert!(extent.begin < extent.end && extent.end <= region);
        assert!(extent.begin.is_multiple_of(block) && extent.end.is_multiple_of(block));
        // Neighbours may share the block that a cut goes through.
        assert!(end <= extent.begin + block && end < extent.end);
        assert_eq!((extent.staging_offset, extent.wanted().start), (staged, next));
        for slot in &slots[extent.wanted()] {
            let first = u64::from(*slot) * stride;
            assert!(extent.begin <= first && first + stride <= extent.end);
        }
        staged += extent.bytes();
        end = extent.end;
        next = extent.wanted().end;
    }
    assert_eq!(next, slots.len());
    assert_eq!((found.bytes, found.reads), (staged, found.extents as u64));
    found
}

/// What an engine over the pack would need can be told, or refused, whatever the pack says.
fn check_config(pack: &Pack<'_>, choices: &mut impl Iterator<Item = u8>) {
    let mut config = Config::new(pack);
    let least = Config::staging_bytes_min(pack).min(Config::staging_bytes_full(pack));
    assert!(least <= Config::staging_bytes_full(pack));
    let shift = |choice: Option<u8>| 1_u32.checked_shl(choice.unwrap_or(0).into()).unwrap_or(0);
    config.cache_bundles = shift(choices.next());
    let _ = required_bytes(&config, pack);
    config.staging_bytes = shift(choices.next()) as usize;
    let _ = required_bytes(&config, pack);
}
