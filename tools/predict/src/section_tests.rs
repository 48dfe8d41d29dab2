use lnp_format::PredictorBody;
use lnp_format::layout::PredictorHeader;

use super::*;

fn values(count: usize, seed: u32) -> Vec<f32> {
    let value = |at: usize| ((at as u32 * 7919 + seed * 104_729) % 257) as f32 / 128.0 - 1.0;
    (0..count).map(value).collect()
}

fn point(quality: f32) -> Point {
    let threshold = quality - 0.75;
    Point { quality, threshold, recall: 0.5, reads_per_active: 1.25, share_kept: 0.75 }
}

fn predictor(body: Body, neurons: usize, by_neuron: bool) -> Predictor {
    let offsets = (0..if by_neuron { 2 } else { 1 }).map(|list| values(neurons, list)).collect();
    let predictor = Predictor::new((0, 0), body, offsets, vec![point(0.5), point(1.0)]).unwrap();
    if by_neuron { predictor.telling_strengths(values(neurons, 8)).unwrap() } else { predictor }
}

/// A low-rank body of a rank.
fn low_rank(numbers: Numbers, (neurons, hidden, rank): (usize, usize, usize)) -> Body {
    let between = Between::Nothing;
    Body::LowRank {
        reduce: Matrix::encode(numbers, hidden, &values(rank * hidden, 1)).unwrap(),
        expand: Matrix::encode(numbers, rank, &values(neurons * rank, 2)).unwrap(),
        between,
    }
}

fn with_relu(body: Body, bias: Option<Vec<f32>>) -> Body {
    match body {
        Body::LowRank { reduce, expand, .. } => {
            Body::LowRank { reduce, expand, between: Between::Relu { bias } }
        }
        rows => rows,
    }
}

/// What a pack's reader finds in a section, as numbers of the predictors file: scores computed from the one are
/// those computed from the other.
#[test]
fn a_section_computes_what_the_file_does() {
    let (neurons, hidden) = (6, 64);
    let rows = |numbers| {
        let matrix = Matrix::encode(numbers, hidden, &values(neurons * hidden, 3)).unwrap();
        Body::Rows(matrix)
    };
    let bodies = [
        low_rank(Numbers::F32, (neurons, hidden, 32)),
        low_rank(Numbers::F16, (neurons, hidden, 40)),
        low_rank(Numbers::Q8_0, (neurons, hidden, 64)),
        with_relu(low_rank(Numbers::Q8_0, (neurons, hidden, 32)), None),
        with_relu(low_rank(Numbers::F16, (neurons, hidden, 40)), Some(values(40, 5))),
        rows(Numbers::F16),
        rows(Numbers::Q8_0),
        rows(Numbers::Bits(1)),
        rows(Numbers::Bits(2)),
        rows(Numbers::Bits(4)),
        rows(Numbers::Bits(8)),
    ];
    let x = values(hidden, 9);
    for body in bodies {
        for by_neuron in [false, true] {
            let predictor = predictor(body.clone(), neurons, by_neuron);
            let file = packed(neurons, hidden, section(&predictor).unwrap());
            let pack = lnp_format::Pack::parse(&file, file.len() as u64).unwrap();
            let found = pack.predictor(0, 0).unwrap();
            assert_eq!(found.by_neuron(), by_neuron);
            let again = read_back(&found, neurons, hidden);
            for at in [0, 1] {
                let (one, two) = (predictor.scores(&x, at).unwrap(), again.scores(&x, at).unwrap());
                assert!(one.iter().zip(&two).all(|(a, b)| (a - b).abs() < 1e-5), "{body}");
            }
            assert_eq!(predictor.points(), again.points());
            assert_eq!(predictor.strength_scales(), again.strength_scales());
            // the bytes that either says it takes, but for what the rank is rounded up by
            let padded = body.rank().is_some_and(|rank| !rank.is_multiple_of(BLOCK));
            assert!(padded || found.bytes() == predictor.bytes() as u64, "{body}");
        }
    }
}

/// A predictor of the pack as one of the file.
fn read_back(found: &lnp_format::Predictor<'_>, neurons: usize, hidden: usize) -> Predictor {
    let numbers: Numbers = found.numbers().name().parse().unwrap();
    let matrix = |rows, columns, bytes: &[u8]| {
        Matrix::from_bytes(numbers, rows, columns, bytes.to_vec()).unwrap()
    };
    let body = match found.body() {
        PredictorBody::Rows(rows) => Body::Rows(matrix(neurons, hidden, rows)),
        PredictorBody::LowRank { rank, reduce, expand, reduce_bias } => Body::LowRank {
            reduce: matrix(rank as usize, hidden, reduce),
            expand: matrix(neurons, rank as usize, expand),
            between: match found.relu_between() {
                false => Between::Nothing,
                true => Between::Relu {
                    bias: (!reduce_bias.is_empty())
                        .then(|| reduce_bias.iter().map(|bias| bias.get()).collect()),
                },
            },
        },
    };
    let lists = if found.by_neuron() { found.points().len() } else { 1 };
    let list = |at| found.offsets(at).iter().map(|bits| half::f16::from_bits(bits.get()).to_f32());
    let points = found.points().iter().map(|point| Point {
        quality: point.quality.get(),
        threshold: point.threshold.get(),
        recall: point.recall.get(),
        reads_per_active: point.reads_per_active.get(),
        share_kept: point.share_kept.get(),
    });
    let offsets = (0..lists).map(|at| list(at).collect()).collect();
    let predictor = Predictor::new((0, 0), body, offsets, points.collect()).unwrap();
    let scales = found.strength_scales().iter();
    let scales: Vec<f32> = scales.map(|bits| half::f16::from_bits(bits.get()).to_f32()).collect();
    if scales.is_empty() { predictor } else { predictor.telling_strengths(scales).unwrap() }
}

/// A pack of one layer with this section, as small as can be.
fn packed(neurons: usize, hidden: usize, section: Section) -> Vec<u8> {
    use lnp_format::checksum::crc32;
    use lnp_format::codes::WHOLE_PACK;
    use lnp_format::{Activation, Dtype, SectionKind, Shape};
    use zerocopy::byteorder::U32;
    let shape = Shape {
        layers: 1,
        neurons: neurons as u32,
        hidden: hidden as u32,
        parts: 2,
        activation: Activation::Relu,
        activation_threshold: 0.0,
        dtype: Dtype::F16,
        bundle_stride: 4 * hidden as u32,
        slots: neurons as u32,
    };
    let n = neurons as u32;
    let words = |words: &mut dyn Iterator<Item = u32>| -> Vec<u8> {
        words.flat_map(u32::to_le_bytes).collect()
    };
    let mut links = write::link_index_header(n, 1, 0, 0).as_bytes().to_vec();
    links.extend(words(&mut (0..n).chain(0..n).chain([0, n]).chain((0..n).map(|_| 0))));
    let region = vec![0; shape.region_bytes(n) as usize];
    let sum = crc32(&region[..4 * hidden]);
    let parts = [
        (SectionKind::ModelShape, WHOLE_PACK, shape.to_disk().as_bytes().to_vec()),
        (SectionKind::Provenance, WHOLE_PACK, b"order=test\ntool=test\n".to_vec()),
        (SectionKind::LinkIndex, 0, links),
        (SectionKind::BundleChecksums, 0, words(&mut (0..n).map(|_| sum))),
        (SectionKind::Predictor, 0, section.bytes),
        (SectionKind::BundleRegion, 0, region),
    ];
    let entry = |(kind, layer, body): &(SectionKind, u32, Vec<u8>)| {
        let mut entry = write::entry(*kind, *layer, 0, body.len() as u64);
        entry.section_crc = U32::new(crc32(body));
        entry
    };
    let mut table: Vec<_> = parts.iter().map(entry).collect();
    let bytes = write::place(&mut table, 4096).unwrap();
    let mut file = vec![0; bytes.file_bytes as usize];
    for (entry, (_, _, body)) in table.iter().zip(&parts) {
        let begin = entry.offset.get() as usize;
        file[begin..begin + body.len()].copy_from_slice(body);
    }
    file[..4096].copy_from_slice(write::seal(&table, bytes, 4096, 0).as_bytes());
    file[4096..4096 + size_of_val(&table[..])].copy_from_slice(table.as_bytes());
    file
}

#[test]
fn a_header_says_what_is_stored() {
    let predictor = predictor(low_rank(Numbers::F16, (6, 64, 40)), 6, true);
    let section = section(&predictor).unwrap();
    let (header, rest) =
        <PredictorHeader as zerocopy::FromBytes>::ref_from_prefix(&section.bytes).unwrap();
    let told = [header.neurons, header.hidden, header.rank, header.points, header.offsets];
    assert_eq!(told.map(|field| field.get()), [6, 64, 64, 2, 2]);
    // points, offsets for each and scales of strength, matrices of a rank rounded up
    assert_eq!(rest.len(), 2 * 32 + 3 * 2 * 6 + 2 * (64 * 64 + 6 * 64));
}
