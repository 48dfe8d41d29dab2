use std::io::Cursor;

use proptest::prelude::*;
use safetensors::SafeTensors;

use super::*;
use crate::link_layer;
use crate::testing::small_traces;
use lnp_common::tensor_file::HEADER_BYTES_MAX;

fn example(order: Order) -> Links {
    let layer = |bits: [u8; 2]| {
        let activity = crate::LayerActivity::from_bits(5, &[(&bits, 2)]).unwrap();
        link_layer(order, 0, &activity).unwrap()
    };
    let trace = |file: &str| TraceSource { file: file.to_owned(), sha256: "0f".repeat(32) };
    Links {
        order,
        neurons: 5,
        profile_tokens: 2,
        corpora: vec!["alpaca".to_owned(), "gsm8k".to_owned()],
        model: "a \"model\"\n".to_owned(),
        traces: vec![trace("a.safetensors"), trace("g.safetensors")],
        tool: Links::this_tool(),
        notes: Default::default(),
        layers: vec![layer([0b10011, 0b10001]); 11],
    }
}

fn bytes(links: &Links) -> Vec<u8> {
    let mut out = Vec::new();
    links.write_to(&mut out).unwrap();
    out
}

fn parse(bytes: &[u8]) -> Result<Links> {
    Links::read_from(&mut Cursor::new(bytes), bytes.len() as u64)
}

/// The file with `from` in its header replaced by `to`.
fn edited(file: &[u8], from: &str, to: &str) -> Vec<u8> {
    let size = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&file[8..8 + size]).unwrap();
    assert!(header.contains(from), "{header}");
    let header = header.replacen(from, to, 1);
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&file[8 + size..]);
    out
}

#[test]
fn written_and_read_back() {
    let replicas = Order::Replicas { placements: 3 };
    for order in [Order::Identity, Order::Random { seed: u64::MAX }, Order::Greedy, replicas] {
        let links = example(order);
        let file = bytes(&links);
        assert_eq!(file, bytes(&links));
        assert_eq!(parse(&file).unwrap(), links);

        // And by the safetensors crate alone.
        let tensors = SafeTensors::deserialize(&file).unwrap();
        assert_eq!(tensors.len(), 11 * (1 + 2 * links.placements()));
        let slots = tensors.tensor("neuron_of_slot.10").unwrap();
        assert_eq!(
            (slots.shape(), slots.data()[0]),
            (&[5][..], links.layers[10].neuron_of_slot[0] as u8)
        );
        let (size, metadata) = SafeTensors::read_metadata(&file).unwrap();
        assert_eq!(size % 8, 0);
        let metadata = metadata.metadata().clone().unwrap();
        assert_eq!(metadata["corpora"], "alpaca,gsm8k");
        assert_eq!(metadata["format"], "lnp-links-v1");
        assert_eq!(metadata.contains_key("seed"), matches!(order, Order::Random { .. }));
    }
}

#[test]
fn copies_are_written_and_read_back() {
    let mut links = example(Order::Refined);
    links.layers[3].neuron_of_slot.extend([2, 0]);
    *links.layers[3].link_begin.last_mut().unwrap() = 7;
    assert_eq!(parse(&bytes(&links)).unwrap(), links);
    links.layers[3].neuron_of_slot[6] = 5;
    assert!(links.write_to(&mut Vec::new()).is_err());
}

#[test]
fn on_disk_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.links");
    let links = example(Order::Greedy);
    links.write(&path).unwrap();
    assert_eq!(Links::read(&path).unwrap(), links);

    let mut broken = links.clone();
    broken.layers[3].link_begin.pop();
    let error = broken.write(&path).unwrap_err().to_string();
    assert!(error.contains("x.links: layer 3: links must begin"), "{error}");
    assert_eq!(Links::read(&path).unwrap(), links, "the old file must stand");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing left behind");

    let error = Links::read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("not a file"), "{error}");
    let error = Links::read(&folder.path().join("none")).unwrap_err().to_string();
    assert!(error.contains("none: No such file") && error.contains("`lnp link`"), "{error}");
    assert!(links.write(&folder.path().join("none/x.links")).is_err());

    let source = TraceSource::of_file(&path).unwrap();
    assert_eq!((source.file.as_str(), source.sha256.len()), ("x.links", 64));
    std::fs::write(&path, "abc").unwrap();
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(TraceSource::of_file(&path).unwrap().sha256, abc);
}

#[test]
fn what_may_not_be_written() {
    type Change = fn(&mut Links);
    let cases: [(Change, &str); 11] = [
        (|l| l.layers.clear(), "0 layers"),
        (|l| l.neurons = 6, "layer 0: 5 neurons, expected 6"),
        (|l| l.neurons = 0, "0 neurons"),
        (|l| l.profile_tokens = 1, "layer 0: neuron 0 is active in 2 of 1 tokens"),
        (|l| l.corpora.truncate(1), "1 corpora for 2 traces"),
        (|l| l.corpora[1] = "a,b".to_owned(), "comma"),
        (|l| l.traces[0].file = "a/b".to_owned(), "without folders"),
        (|l| l.traces[0].sha256 = "0F".repeat(32), "no SHA-256"),
        (|l| l.layers[10].neuron_of_slot[4] = 0, "layer 10: neuron 0 is in slots"),
        (|l| l.layers[3].further.clear(), "layer 3: 1 placements, expected 2"),
        (
            |l| l.layers[3].further[0].neuron_of_slot[4] = 0,
            "layer 3: placement 1: neuron 0 is in slots",
        ),
    ];
    for (change, expected) in cases {
        let mut links = example(Order::Replicas { placements: 2 });
        change(&mut links);
        let error = format!("{:#}", links.write_to(&mut Vec::new()).unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_may_not_be_read() {
    let file = bytes(&example(Order::Random { seed: 3 }));
    let cases = [
        ("lnp-links-v1", "lnp-links-v9", "format is 'lnp-links-v9'"),
        ("\"format\"", "\"forma_\"", "'format' is missing"),
        ("\"layers\":\"11\"", "\"layers\":\"12\"", "33 tensors for 12 layers"),
        ("\"layers\":\"11\"", "\"layers\":\"99999999999\"", "at most"),
        ("\"layers\":\"11\"", "\"layers\":\"x\"", "'layers' is 'x', not a number"),
        ("\"neurons\":\"5\"", "\"neurons\":\"4\"", "active_count.0 has 5 entries, expected 4"),
        ("\"order\":\"random\"", "\"order\":\"best\"", "use identity, random"),
        ("\"seed\":\"3\"", "\"seed\":\"-3\"", "'seed' is '-3'"),
        ("\"profile_tokens\":\"2\"", "\"profile_tokens\":\"1\"", "layer 0: neuron 0 is active"),
        ("active_count.3", "active_count.x", "active_count.3 is missing"),
        ("\"U32\",\"shape\":[5]", "\"F32\",\"shape\":[5]", "is F32 [5]"),
        ("\"U32\",\"shape\":[5]", "\"U16\",\"shape\":[10]", "is U16 [10]"),
        ("\"shape\":[5]", "\"shape\":[5,1]", "U32 [5, 1]"),
        ("\"shape\":[5]", "\"shape\":[6]", "header is damaged"),
        ("\\\"file\\\"", "\\\"name\\\"", "'traces' is no list"),
        ("{", "[", "header is damaged"),
    ];
    for (from, to, expected) in cases {
        let error = format!("{:#}", parse(&edited(&file, from, to)).unwrap_err());
        assert!(error.contains(expected), "{from}: {error}");
    }
    let file = bytes(&example(Order::Replicas { placements: 2 }));
    let cases = [
        ("\"placements\":\"2\"", "\"placements\":\"3\"", "55 tensors for 11 layers, expected 7"),
        ("\"placements\":\"2\"", "\"placements\":\"0\"", "1 to 16 are possible"),
        ("link_begin.7.1", "link_begin.7.2", "link_begin.7.1 is missing"),
    ];
    for (from, to, expected) in cases {
        let error = format!("{:#}", parse(&edited(&file, from, to)).unwrap_err());
        assert!(error.contains(expected), "{from}: {error}");
    }
}

#[test]
fn claims_past_the_end_of_the_file() {
    let file = bytes(&example(Order::Greedy));
    for size in [u64::MAX, u64::MAX - 7, HEADER_BYTES_MAX, HEADER_BYTES_MAX + 1, file.len() as u64]
    {
        let mut claims = file.clone();
        claims[..8].copy_from_slice(&size.to_le_bytes());
        assert!(parse(&claims).is_err());
    }
    // Eight tensors that end 16 bytes under 2^64, where adding the header's length overflows.
    let mut tensors = Vec::new();
    let mut begin = 0u64;
    for index in 0..8 {
        let length = if index == 7 { u64::MAX - 15 - begin } else { (1 << 61) - 1 };
        let end = begin + length;
        tensors.push(format!(
            "\"t{index}\":{{\"dtype\":\"U8\",\"shape\":[{length}],\"data_offsets\":[{begin},{end}]}}"
        ));
        begin = end;
    }
    let header = format!("{{{}}}", tensors.join(","));
    let mut hostile = (header.len() as u64).to_le_bytes().to_vec();
    hostile.extend_from_slice(header.as_bytes());
    let error = format!("{:#}", parse(&hostile).unwrap_err());
    assert!(error.contains("cut off or damaged"), "{error}");
}

proptest! {
    #[test]
    fn any_order_survives_the_file(trace in small_traces()) {
        let activity = trace.activity();
        let links = Links {
            neurons: trace.neurons,
            profile_tokens: trace.tokens.len() as u64,
            layers: vec![link_layer(Order::Greedy, 0, &activity).unwrap(); 2],
            ..example(Order::Greedy)
        };
        prop_assert_eq!(parse(&bytes(&links)).unwrap(), links);
    }

    /// Damage is an error or leaves valid links; it never panics.
    #[test]
    fn damage_never_panics(at in prop::collection::vec((0usize..6000, any::<u8>()), 1..4), cut in 0usize..6000) {
        let mut file = bytes(&example(Order::Greedy));
        for (position, byte) in at {
            let position = position % file.len();
            file[position] = byte;
        }
        if let Ok(links) = parse(&file) {
            links.check().unwrap();
        }
        file.truncate(cut % file.len());
        prop_assert!(parse(&file).is_err());
    }
}
