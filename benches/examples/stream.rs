//! Our side of `benches/fio`: a list of reads as one stream through the engine's read queue.
//!
//!     stream list random|linked|sequential PACK READS LIST [TRACE DEVICE]
//!     stream run LIST DEPTH none|completion|submission crate|own [LAYERS]
//!
//! `list` writes the reads in fio's own form (iolog, version 2), and where a layer's reads end beside
//! it (`LIST.layers`). `run` reads them over the ring of the crate `io-uring` or our own, without
//! a barrier; with LAYERS it drains the queue at each layer's end, as the engine does. Prints one line of
//! JSON.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use lnp_engine::arena::{Arena, Staging, StagingMemory};
use lnp_engine::limits::{READ_BYTES_DEFAULT, STAGING_ALIGN};
use lnp_engine::plan::{Extent, Geometry, plan};
use lnp_engine::queue::{Read, ReadError, ReadFailure, turn};
use lnp_engine::sys::{BackEndChoice, DeviceQueue, DirectFile, Polling, ReadOptions, RingKind};
use lnp_engine::{Collapse, DeviceLaw};
use lnp_link::trace::{TraceReader, active};
use lnp_measure::profile::DeviceProfile;
use lnp_pack::PackIndex;
use memmap2::{Advice, MmapMut};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// A huge page, bytes; fio's buffers lie in such pages too.
const HUGE_PAGE_BYTES: usize = 2 << 20;
const BLOCK_BYTES: u64 = 4096;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match *args {
        ["list", "linked", pack, reads, list, trace, device] => {
            let law = DeviceProfile::read(device.as_ref())?.law.law()?;
            let layers = linked(pack.as_ref(), trace.as_ref(), law, reads.parse()?)?;
            write_list(pack, list, &layers)
        }
        ["list", kind, pack, reads, list] => {
            let reads = unlinked(kind, fs::metadata(pack)?.len(), reads.parse()?)?;
            write_list(pack, list, &[reads])
        }
        ["run", list, depth, polling, ring] => run(list, depth.parse()?, (polling, ring), None),
        ["run", list, depth, polling, ring, layers] => {
            run(list, depth.parse()?, (polling, ring), Some(layers))
        }
        _ => bail!("see the head of benches/examples/stream.rs"),
    }
}

/// Offset and length of a read, bytes.
type Piece = (u64, u32);

/// Small reads at random places, or large ones one after the other, from the front again at the end.
fn unlinked(kind: &str, file_bytes: u64, reads: usize) -> Result<Vec<Piece>> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    let large = u64::from(READ_BYTES_DEFAULT);
    match kind {
        "random" => Ok((0..reads)
            .map(|_| (random.random_range(0..file_bytes / BLOCK_BYTES) * BLOCK_BYTES, 4096))
            .collect()),
        "sequential" => Ok((0..reads as u64)
            .map(|at| (at % (file_bytes / large) * large, READ_BYTES_DEFAULT))
            .collect()),
        _ => bail!("no workload {kind}"),
    }
}

/// What the engine would read, layer by layer, without a cache: at least `reads` reads, in whole
/// layers. Successive tokens use successive copies of the model's layers, as in `lnp replay`.
fn linked(pack: &Path, trace: &Path, law: DeviceLaw, reads: usize) -> Result<Vec<Vec<Piece>>> {
    let index = PackIndex::open(pack)?;
    let pack = index.pack()?;
    let shape = pack.shape();
    let trace = TraceReader::open(trace)?;
    let bits: Vec<Vec<u8>> =
        (0..trace.layers()).map(|layer| trace.layer_bits(layer)).collect::<Result<_>>()?;
    let geometry = Geometry {
        bundle_stride: shape.bundle_stride,
        block_bytes: pack.block_bytes(),
        slots: shape.slots,
        read_bytes_max: READ_BYTES_DEFAULT,
    };
    let mut extents = vec![Extent::default(); trace.neurons()];
    let mut holes = vec![0; trace.neurons()];
    let copies = shape.layers as usize / bits.len();
    let (mut layers, mut count) = (Vec::new(), 0);
    for token in (0..trace.tokens()).cycle() {
        for (number, bits) in bits.iter().enumerate() {
            let layer = pack
                .layer((token % copies * trace.layers() + number) as u32)
                .context("a pack of fewer layers")?;
            let slot_of = layer.slot_of_neuron();
            let mut slots: Vec<u32> = active(bits, trace.neurons(), token)
                .map(|neuron| slot_of.get(neuron as usize).map(|slot| slot.get()))
                .collect::<Option<_>>()
                .context("a neuron beyond the layer")?;
            slots.sort_unstable();
            let planned =
                plan(&slots, &geometry, &Collapse::Law(law), &mut extents, &mut holes).extents;
            let pieces: Vec<Piece> = extents[..planned]
                .iter()
                .flat_map(|extent| {
                    (extent.begin..extent.end).step_by(READ_BYTES_DEFAULT as usize).map(|begin| {
                        let bytes = (extent.end - begin).min(READ_BYTES_DEFAULT.into());
                        (layer.region_offset() + begin, bytes as u32)
                    })
                })
                .collect();
            count += pieces.len();
            if !pieces.is_empty() {
                layers.push(pieces);
            }
        }
        if count >= reads || (token + 1 == trace.tokens() && count == 0) {
            break;
        }
    }
    Ok(layers)
}

fn write_list(pack: &str, list: &str, layers: &[Vec<Piece>]) -> Result<()> {
    let (mut text, mut ends) =
        (format!("fio version 2 iolog\n{pack} add\n{pack} open\n"), String::new());
    for layer in layers {
        for (offset, bytes) in layer {
            writeln!(text, "{pack} read {offset} {bytes}")?;
        }
        writeln!(ends, "{}", layer.len())?;
    }
    writeln!(text, "{pack} close")?;
    fs::write(list, text)?;
    fs::write(format!("{list}.layers"), ends)?;
    Ok(())
}

/// The file and the reads of a list.
fn read_list(list: &str) -> Result<(String, Vec<Piece>)> {
    let text = fs::read_to_string(list).with_context(|| list.to_owned())?;
    let mut file = None;
    let mut reads = Vec::new();
    for line in text.lines() {
        match *line.split(' ').collect::<Vec<_>>() {
            [path, "open"] => file = Some(path.to_owned()),
            [_, "read", offset, bytes] => reads.push((offset.parse()?, bytes.parse()?)),
            _ => {}
        }
    }
    Ok((file.context("a list without a file")?, reads))
}

fn run(list: &str, depth: usize, how: (&str, &str), layers: Option<&str>) -> Result<()> {
    let (polling, ring) = how;
    let polling = [Polling::None, Polling::Completion, Polling::Submission]
        .into_iter()
        .find(|known| known.name() == polling)
        .with_context(|| format!("no polling {polling}"))?;
    let ring = match ring {
        "crate" => RingKind::Crate,
        "own" => RingKind::Own,
        _ => bail!("no ring {ring}"),
    };
    let (path, reads) = read_list(list)?;
    let ends: Vec<usize> = match layers {
        None => vec![reads.len()],
        Some(layers) => fs::read_to_string(layers)?
            .lines()
            .map(|line| Ok(line.parse()?))
            .collect::<Result<_>>()?,
    };
    let path = std::ffi::CString::new(Path::new(&path).as_os_str().as_bytes())?;
    let file: &'static _ = Box::leak(Box::new(DirectFile::open(&path, false)?));
    // Each place of the queue has a staging area of its own, as long as the longest read: the next
    // read goes there as soon as the last one is done, whatever the others do.
    let longest = reads.iter().map(|(_, bytes)| *bytes as usize).max().context("no reads")?;
    let bytes =
        (depth * (longest + STAGING_ALIGN) + HUGE_PAGE_BYTES).next_multiple_of(HUGE_PAGE_BYTES);
    let map = Box::leak(Box::new(MmapMut::map_anon(bytes + HUGE_PAGE_BYTES)?));
    let begin = map.as_ptr().addr().wrapping_neg() % HUGE_PAGE_BYTES;
    map.advise_range(Advice::HugePage, begin, bytes)?;
    map.fill(0);
    let mut memory: &'static mut [u8] = &mut map[begin..begin + bytes];
    let staging = StagingMemory::of(&mut memory);
    let mut arena = Arena::new(memory);
    let mut areas = Vec::new();
    for _ in 0..depth {
        areas.push(arena.take_bytes(longest, STAGING_ALIGN)?);
    }
    let mut places: Vec<Staging<'static>> = Vec::new();
    for area in areas {
        places.push(Staging::new(&mut arena, area, 1)?);
    }
    let options = ReadOptions { back_end: BackEndChoice::UringOver(ring), polling };
    let mut queue = DeviceQueue::open(file, staging, depth as u32, options)?;

    let mut free: Vec<u32> = (0..depth as u32).rev().collect();
    let (cpu_begin, begin) = (cpu_ns()?, Instant::now());
    let mut rest = reads.as_slice();
    for count in ends {
        let (layer, after) = rest.split_at_checked(count).context("layers of another list")?;
        rest = after;
        stream(&mut queue, &mut places, &mut free, layer)?;
    }
    let (wall, cpu) = (begin.elapsed(), cpu_ns()? - cpu_begin);
    ensure!(rest.is_empty(), "layers of another list");
    let bytes: u64 = reads.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
    println!(
        "{{\"wall_s\": {:.6}, \"reads\": {}, \"bytes\": {bytes}, \"cpu_us_per_read\": {:.4}, \
         \"back_end\": \"{}\"}}",
        wall.as_secs_f64(),
        reads.len(),
        cpu as f64 / 1e3 / reads.len() as f64,
        queue.back_end()
    );
    Ok(())
}

/// Keeps the queue full until everything was read, as the engine and the probe do it.
fn stream(
    queue: &mut DeviceQueue<'static>,
    places: &mut [Staging<'static>],
    free: &mut Vec<u32>,
    reads: &[Piece],
) -> Result<()> {
    let (mut rest, mut result) = (reads.iter(), Ok(()));
    let mut next = |free: &mut Vec<u32>| {
        let tag = *free.last()?;
        let (file_offset, bytes) = *rest.next()?;
        free.pop();
        Some(read(&mut places[tag as usize], file_offset, bytes, tag))
    };
    while turn(queue, free, &mut next, |free, completion| {
        result = result.and(completion.result);
        free.push(completion.tag);
    })? {}
    Ok(result?)
}

/// A read into a place that is free.
fn read(
    place: &mut Staging<'static>,
    file_offset: u64,
    bytes: u32,
    tag: u32,
) -> Result<Read<'static>, ReadError> {
    let fits = place.lay_out(std::iter::once(bytes.into()));
    let lease = place.lease(0).filter(|_| fits);
    let failure = ReadFailure::NoBuffer;
    Ok(Read { file_offset, lease: lease.ok_or(ReadError { failure, file_offset, bytes })?, tag })
}

/// Nanoseconds that this thread has run, its system calls included.
fn cpu_ns() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().context("an empty schedstat")?.parse()?)
}
