use proptest::prelude::*;

use super::*;

use crate::written::{Pickled, f32_bytes, pickled, state_dict, text, zipped};

fn opened(bytes: &[u8]) -> Result<TorchFile> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model_0.pt");
    std::fs::write(&path, bytes).unwrap();
    TorchFile::open(&path)
}

/// Everything that can be had of a file.
fn read_all(bytes: &[u8]) -> Result<Vec<Vec<f32>>> {
    let mut file = opened(bytes)?;
    // a dictionary has no order
    let mut names: Vec<String> = file.tensors.iter().map(|tensor| tensor.name.clone()).collect();
    names.sort();
    names.iter().map(|name| file.read(name)).collect()
}

fn told(bytes: &[u8]) -> String {
    let told = format!("{:#}", read_all(bytes).unwrap_err());
    assert!(told.len() < 300 && !told.contains('\n'), "{told}");
    told
}

#[test]
fn tensors_of_every_type_and_order() {
    let values = [1.0, -2.5, 3.0, 0.5, -0.25, 8.0];
    let doubles: Vec<u8> = values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
    let halves: Vec<u8> =
        values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    let brains: Vec<u8> =
        values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
    let data = [("0", f32_bytes(&values)), ("1", doubles), ("2", halves), ("3", brains)];
    let tensor = |name, storage, key, offset, shape, strides| Pickled {
        name,
        storage,
        key,
        offset,
        shape,
        strides,
        parameter: offset > 0,
    };
    let tensors = [
        tensor("a", "FloatStorage", "0", 0, &[2, 3], &[3, 1]),
        tensor("b", "FloatStorage", "0", 0, &[3, 2], &[1, 3]),
        tensor("c", "FloatStorage", "0", 4, &[2], &[1]),
        tensor("d", "DoubleStorage", "1", 2, &[2, 2], &[2, 1]),
        tensor("e", "HalfStorage", "2", 0, &[6], &[1]),
        tensor("f", "BFloat16Storage", "3", 5, &[1], &[1]),
    ];
    let found = read_all(&zipped(&pickled(&tensors), &data)).unwrap();
    assert_eq!(found[0], values);
    assert_eq!(found[1], [1.0, 0.5, -2.5, -0.25, 3.0, 8.0]);
    assert_eq!(found[2], values[4..]);
    assert_eq!(found[3], values[2..]);
    assert_eq!(found[4], values);
    assert_eq!(found[5], [8.0]);
    let file = opened(&zipped(&pickled(&tensors), &data)).unwrap();
    assert_eq!(file.shape("b").unwrap(), [3, 2]);
    assert!(file.contains("e") && !file.contains("g"));
}

#[test]
fn what_is_not_there_is_told() {
    let sound = state_dict(&[("a", &[2, 2], &[1.0; 4])]);
    assert_eq!(read_all(&sound).unwrap(), [[1.0; 4]]);
    assert!(told(b"not a zip").contains("not a zip"));
    assert!(told(&state_dict(&[("a", &[2, 2], &[1.0; 3])])).contains("12 of 16 bytes"));
    assert!(told(&zipped(b"\x80\x02K\x01.", &[])).contains("no dictionary"));
    let strided = Pickled {
        name: "a",
        storage: "FloatStorage",
        key: "0",
        offset: 0,
        shape: &[2, 2],
        strides: &[4, 1],
        parameter: false,
    };
    assert!(told(&zipped(&pickled(&[strided]), &[])).contains("a kind not known"));
    let huge = Pickled {
        name: "a",
        storage: "FloatStorage",
        key: "0",
        offset: 0,
        shape: &[1 << 30, 1 << 30],
        strides: &[1 << 30, 1],
        parameter: false,
    };
    assert!(told(&zipped(&pickled(&[huge]), &[("0", vec![0; 4])])).contains("bytes are there"));
    let mut file = opened(&sound).unwrap();
    assert!(format!("{:#}", file.read("b").unwrap_err()).contains("has no tensor `b`"));
}

/// Pickles that candle would take at their word: memory, or a stack, without end.
#[test]
fn hostile_pickles_end_early() {
    let doubled = [&b"\x80\x02)q\x00"[..], &b"h\x00h\x00\x86q\x00".repeat(60), b"."].concat();
    let nested = [&b"\x80\x02)"[..], &b"\x85".repeat(60_000), b"."].concat();
    let lists = [&b"\x80\x02"[..], &b"]".repeat(5000), &b"a".repeat(4999), b"."].concat();
    let long_text = b"\x80\x02X\xff\xff\xff\xffabc.".to_vec();
    let long_number = b"\x80\x02\x8a\xff0123456789.".to_vec();
    let again: Vec<u8> =
        [&text(&"t".repeat(1000))[..], b"q\x00", &b"h\x00".repeat(30_000), b"."].concat();
    for pickle in [doubled, nested, lists, long_text, long_number, Vec::new(), b"\x80".to_vec()] {
        assert!(told(&zipped(&pickle, &[])).contains("no description of tensors"));
    }
    // half a million pieces of text are no harm, but no dictionary either
    assert!(told(&zipped(&again, &[])).contains("data.pkl") || again.len() < 1 << 16);
    let large = [vec![b'N'; 1 << 16], b".".to_vec()].concat();
    assert!(told(&zipped(&large, &[])).contains("has more than"));
}

proptest! {
    /// Whatever is changed or cut off: numbers, or one line.
    #[test]
    fn damage_is_one_line(at in 0usize..2000, to in any::<u8>(), cut in any::<bool>()) {
        let values: Vec<f32> = (0..12).map(|value| value as f32).collect();
        let mut bytes = state_dict(&[("fc1.weight", &[3, 4], &values), ("fc2.bias", &[2], &[1.0, 2.0])]);
        let at = at % bytes.len();
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = to;
        }
        match read_all(&bytes) {
            Ok(found) => prop_assert!(!cut && found.len() <= 2),
            Err(error) => {
                let told = format!("{error:#}");
                prop_assert!(!told.contains('\n') && told.len() < 400, "{}", told);
            }
        }
    }

    /// Any bytes for a pickle.
    #[test]
    fn any_pickle(pickle in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_all(&zipped(&pickle, &[]));
    }
}
