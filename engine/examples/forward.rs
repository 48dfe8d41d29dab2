//! A layer's FFN from a pack, in a program with std: opens the pack, computes every layer for a made-up
//! hidden state, and prints a checksum of the results' bits. `engine/examples/no_std` does the same
//! without std and must print the same.
//!
//! ```text
//! cargo run -p lnp-engine --example forward -- model.lnp
//! ```

use std::error::Error;
use std::ffi::CString;

use lnp_engine::ffn::Ffn;
use lnp_engine::limits::GAP_BYTES_USUAL;
use lnp_engine::sys::{BackEndChoice, DirectFile, cpu};
use lnp_engine::{Collapse, Config, open_engine, required_bytes};
use lnp_format::{Pack, Peek};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: forward PACK")?;
    let file = DirectFile::open(&CString::new(path.clone())?, false)?;

    // The index, whose views everything borrows.
    let bytes = std::fs::read(&path)?; // a program would read no more than `index_bytes`
    let read = |offset: u64, into: &mut [u8]| {
        let begin = offset as usize;
        into.copy_from_slice(bytes.get(begin..begin + into.len()).ok_or("the pack is cut short")?);
        Ok::<_, Box<dyn Error>>(())
    };
    let peek = Peek::read(file.bytes(), file.is_device(), read)?;
    let pack = Pack::parse(&bytes[..peek.index_bytes as usize], file.bytes())?;

    // Memory: once, and never again.
    let config = Config {
        collapse: Collapse::Gap { bytes: GAP_BYTES_USUAL },
        cache_bundles: 100,
        ..Config::new(&pack)
    };
    let mut arena = vec![0; required_bytes(&config, &pack)?];
    let mut engine = open_engine(&file, pack, &config, &mut arena, BackEndChoice::Auto)?;
    let shape = *engine.pack().shape();
    let mut ffn_memory = vec![0; Ffn::required_bytes(&shape, cpu::detect(), 1)?];
    let mut ffn = Ffn::new(&shape, cpu::detect(), 1, &mut ffn_memory)?;

    let x: Vec<f32> = (0..shape.hidden).map(|i| (i % 7) as f32 - 3.0).collect();
    let mut y = vec![0.0; x.len()];
    let active: Vec<u32> = (0..shape.neurons).step_by(5).collect();
    let mut checksum = 0_u32;
    for layer in 0..shape.layers {
        let stats = ffn.forward(&mut engine, layer, &x, &active, &mut y)?;
        checksum = y.iter().fold(checksum, |sum, value| sum.rotate_left(5) ^ value.to_bits());
        eprintln!("layer {layer}: {} reads, {} bytes", stats.reads, stats.bytes_read);
    }
    println!("{checksum:08x}");
    Ok(())
}
