//! Files as PyTorch's `torch.save` writes them: a zip, not compressed, of a pickle and of the numbers.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "a part of several tests, each of which uses some of it"
)]

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A tensor of a state_dict.
pub struct Pickled<'a> {
    pub name: &'a str,
    /// Such as `FloatStorage`.
    pub storage: &'a str,
    /// Entry below `data`.
    pub key: &'a str,
    pub offset: u32,
    pub shape: &'a [u32],
    pub strides: &'a [u32],
    /// As `torch.nn.Parameter` is pickled.
    pub parameter: bool,
}

pub fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn int(number: u32) -> Vec<u8> {
    [b"J", &number.to_le_bytes()[..]].concat()
}

fn tuple(numbers: &[u32]) -> Vec<u8> {
    let numbers: Vec<u8> = numbers.iter().flat_map(|number| int(*number)).collect();
    [b"(", &numbers[..], b"t"].concat()
}

/// The pickle of a state_dict, protocol 2.
pub fn pickled(tensors: &[Pickled<'_>]) -> Vec<u8> {
    let mut out = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(".to_vec();
    for tensor in tensors {
        out.extend(text(tensor.name));
        if tensor.parameter {
            out.extend(b"ctorch._utils\n_rebuild_parameter\n(");
        }
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\nq\x03((");
        out.extend([text("storage"), b"ctorch\n".to_vec()].concat());
        out.extend([tensor.storage.as_bytes(), b"\nq\x05"].concat());
        out.extend([text(tensor.key), text("cpu"), int(1 << 20), b"tQ".to_vec()].concat());
        out.extend([int(tensor.offset), tuple(tensor.shape), tuple(tensor.strides)].concat());
        out.extend(b"\x89h\x00)RtR");
        if tensor.parameter {
            out.extend(b"\x88h\x00)RtR");
        }
    }
    // the dictionary has an attribute, which is not of its entries
    out.extend([&b"u}"[..], &text("_metadata"), b"h\x00)Rsb."].concat());
    out
}

/// A zip of a pickle and of entries below `data`.
pub fn zipped(pickle: &[u8], data: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", options).unwrap();
    zip.write_all(pickle).unwrap();
    for (key, bytes) in data {
        zip.start_file(format!("archive/data/{key}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.start_file("archive/version", options).unwrap();
    zip.write_all(b"3\n").unwrap();
    zip.finish().unwrap().into_inner()
}

pub fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A state_dict of F32 tensors.
pub fn state_dict(tensors: &[(&str, &[u32], &[f32])]) -> Vec<u8> {
    let keys: Vec<String> = (0..tensors.len()).map(|key| key.to_string()).collect();
    let strides: Vec<Vec<u32>> = tensors
        .iter()
        .map(|(_, shape, _)| (0..shape.len()).map(|at| shape[at + 1..].iter().product()).collect())
        .collect();
    let described = tensors.iter().zip(&keys).zip(&strides);
    let described: Vec<Pickled<'_>> = described
        .map(|(((name, shape, _), key), strides)| Pickled {
            name,
            storage: "FloatStorage",
            key,
            offset: 0,
            shape,
            strides,
            parameter: false,
        })
        .collect();
    let data = tensors.iter().zip(&keys).map(|((_, _, values), key)| (&**key, f32_bytes(values)));
    zipped(&pickled(&described), &data.collect::<Vec<_>>())
}
