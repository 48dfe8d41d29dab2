use super::*;
use crate::predicted::PredictedLayer;

/// 11 neurons, so that five bits of each row are unused.
fn data() -> TraceData {
    let row = |token: u8, layer: u8| [token.wrapping_mul(37) ^ layer, (token + layer) % 8];
    TraceData {
        model: "m".to_owned(),
        corpus: "c \"quoted\"".to_owned(),
        split: "test".to_owned(),
        active: "relu(fc1)>0".to_owned(),
        neurons: 11,
        tokens: 5,
        window: 4,
        token_ids: Some(vec![3, 1, 4, 1, 5]),
        inputs: Some(InputRows {
            rows: vec![0, 3],
            hidden: 3,
            layers: (0..12).map(|layer| (layer..layer + 12).collect()).collect(),
        }),
        predicted: Some(PredictedSets {
            predictors: "0f".repeat(32),
            quality: 0.99,
            layers: [(0, 0), (3, 0), (3, 2), (11, 1)]
                .map(|(layer, horizon)| PredictedLayer {
                    layer,
                    horizon,
                    bits: (0..5).flat_map(|t| row(t, layer as u8 + 7)).collect(),
                })
                .into(),
        }),
        synthetic: None,
        layers: (0..12).map(|l| (0..5).flat_map(|t| row(t, l)).collect()).collect(),
    }
}

#[test]
fn written_and_read_back() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("t.safetensors");
    let data = data();
    write_trace(&path, &data)?;
    let reader = TraceReader::open(&path)?;
    assert_eq!((reader.layers(), reader.neurons()), (12, 11));
    assert_eq!((reader.tokens(), reader.window()), (5, 4));
    assert_eq!(reader.corpus(), Some("c \"quoted\""));
    assert_eq!((reader.model(), reader.split()), (Some("m"), Some("test")));
    assert_eq!(reader.token_ids()?, data.token_ids);
    for (layer, bits) in data.layers.iter().enumerate() {
        assert_eq!(&reader.layer_bits(layer)?, bits);
    }
    assert_eq!(reader.input_rows()?, Some((vec![0, 3], 3)));
    for layer in 0..12 {
        assert_eq!(reader.inputs(layer)?, (layer as u8..layer as u8 + 12).collect::<Vec<_>>());
    }
    assert_eq!(reader.predictors(), Some(("0f".repeat(32).as_str(), 0.99)));
    for predicted in &data.predicted.as_ref().unwrap().layers {
        let found = reader.predicted_bits(predicted.layer, predicted.horizon)?;
        assert_eq!(found.as_ref(), Some(&predicted.bits));
    }
    assert_eq!(reader.predicted_bits(3, 1)?, None);
    assert!(reader.inputs(12).is_err());
    assert!(reader.layer_bits(12).is_err());
    // The same data gives the same bytes, and leaves no other file behind.
    let first = (std::fs::read(&path)?, reader.sha256_hex()?);
    write_trace(&path, &data)?;
    assert_eq!((std::fs::read(&path)?, TraceReader::open(&path)?.sha256_hex()?), first);
    assert_eq!(std::fs::read_dir(dir.path())?.count(), 1);
    Ok(())
}

#[test]
fn ids_from_bits() {
    let bits = [0b1000_0001, 0b101, 0, 0b100];
    assert_eq!(active(&bits, 11, 0).collect::<Vec<_>>(), [0, 7, 8, 10]);
    assert_eq!(active(&bits, 11, 1).collect::<Vec<_>>(), [10]);
    assert_eq!(active(&bits, 11, 2).count(), 0);
    assert_eq!(active(&bits, 11, usize::MAX).count(), 0);
}

#[test]
fn contradictions_are_errors() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("t.safetensors");
    let refuse = |change: &dyn Fn(&mut TraceData)| {
        let mut bad = data();
        change(&mut bad);
        assert!(write_trace(&path, &bad).is_err(), "{bad:?}");
        assert!(!path.exists());
    };
    refuse(&|bad| bad.layers[3].truncate(9));
    refuse(&|bad| bad.layers[3][1] = 0b1000);
    refuse(&|bad| bad.layers.clear());
    let refuse_inputs = |change: &dyn Fn(&mut InputRows)| {
        refuse(&|bad| bad.inputs.iter_mut().for_each(change));
    };
    refuse_inputs(&|bad| bad.rows = vec![3, 3]);
    refuse_inputs(&|bad| bad.rows = vec![3, 5]);
    refuse_inputs(&|bad| bad.rows.clear());
    refuse_inputs(&|bad| bad.hidden = 2);
    refuse_inputs(&|bad| bad.layers[7].truncate(11));
    refuse_inputs(&|bad| bad.layers.truncate(11));
    let refuse_predicted = |change: &dyn Fn(&mut PredictedLayer)| {
        refuse(&|bad| bad.predicted.iter_mut().for_each(|sets| change(&mut sets.layers[2])));
    };
    refuse_predicted(&|bad| bad.bits.truncate(9));
    refuse_predicted(&|bad| bad.bits[1] = 0b1000);
    refuse_predicted(&|bad| bad.horizon = 4);
    refuse_predicted(&|bad| bad.layer = 12);
    refuse(&|bad| bad.window = 0);
    refuse(&|bad| bad.token_ids = Some(vec![1]));
    refuse(&|bad| bad.token_ids = Some(vec![u32::MAX; 5]));

    write_trace(&path, &data())?;
    let good = std::fs::read(&path)?;
    // Metadata that the tensors contradict: replacements of equal length keep the file whole.
    for (from, to) in [
        ("\"layers\":\"12\"", "\"layers\":\"11\""),
        ("\"layers\":\"12\"", "\"layers\":\"13\""),
        ("\"neurons\":\"11\"", "\"neurons\":\"17\""),
        ("\"tokens\":\"5\"", "\"tokens\":\"6\""),
        ("\"window\":\"4\"", "\"window\":\"0\""),
        ("\"window\":", "\"windov\":"),
        ("bits-v1", "bits-v2"),
        ("layer.7", "layer.x"),
        ("inputs.7", "inputs.x"),
        ("predicted.3", "predicted.x"),
        ("ahead.2.3", "ahead.4.3"),
        ("ahead.1.11", "ahead.1.12"),
        ("input_rows", "input_rowz"),
        ("[2,3]", "[3,2]"),
    ] {
        let at = good.windows(from.len()).position(|bytes| bytes == from.as_bytes());
        let at = at.with_context(|| from.to_owned())?;
        let mut bad = good.clone();
        bad[at..at + to.len()].copy_from_slice(to.as_bytes());
        std::fs::write(&path, bad)?;
        assert!(TraceReader::open(&path).is_err(), "{from} -> {to}");
    }
    // A bit beyond the last neuron is found when its layer is read: the inputs of 12 layers follow it,
    // 12 bytes each, and 2 rows, and four predicted sets.
    let mut bad = good;
    let last = bad.len() - 12 * 12 - 2 * 4 - 4 * 10 - 1;
    bad[last] |= 0x80;
    std::fs::write(&path, bad)?;
    let reader = TraceReader::open(&path)?;
    assert!(reader.layer_bits(10).is_ok() && reader.layer_bits(11).is_err());
    Ok(())
}
