//! The links file: the order of every layer, as a safetensors file.
//!
//! Per layer i three U32 tensors: `neuron_of_slot.{i}` [neurons], `link_begin.{i}` [links + 1] and
//! `active_count.{i}` [neurons], the last by neuron id. Metadata, all strings: `format` =
//! [`FORMAT`], `order`, `layers`, `neurons`, `profile_tokens`, `corpora` (comma-separated, one a
//! trace), `model`, `traces` (JSON list of [`TraceSource`]), `tool`, and `seed` for the random
//! order. Same links, same bytes: the header's keys and the tensors are sorted by name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::orders::{LayerLinks, Order};
use super::{LAYERS_MAX, NEURONS_MAX};

/// The value of the metadata entry `format`.
pub const FORMAT: &str = "lnp-links-v1";

/// Largest header read or written, the limit of the safetensors format.
pub const HEADER_BYTES_MAX: u64 = 100_000_000;

/// A trace that an order was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceSource {
    /// File name, without folders.
    pub file: String,
    /// SHA-256 of the file, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl TraceSource {
    /// Name and hash of the trace at `path`.
    ///
    /// # Errors
    /// The file can't be read or has no UTF-8 name.
    pub fn of_file(path: &Path) -> Result<Self> {
        let what = || format!("cannot hash trace {}", path.display());
        let name = path.file_name().and_then(|name| name.to_str()).with_context(what)?;
        let mut file = File::open(path).with_context(what)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer).with_context(what)? {
                0 => break,
                read => hash.update(&buffer[..read]),
            }
        }
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { file: name.to_owned(), sha256 })
    }
}

/// The order of all layers and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// The order, with its seed.
    pub order: Order,
    /// Neurons of every layer.
    pub neurons: usize,
    /// Tokens of all profiling traces together.
    pub profile_tokens: u64,
    /// Corpus of each trace, in the order of `traces`; no commas.
    pub corpora: Vec<String>,
    /// Name of the model the traces were taken from.
    pub model: String,
    /// The traces, in the order they were appended.
    pub traces: Vec<TraceSource>,
    /// Program and version that made the order, as [`Links::this_tool`].
    pub tool: String,
    /// One entry a layer.
    pub layers: Vec<LayerLinks>,
}

/// The JSON header. `BTreeMap`, because the bytes must not depend on a hash seed.
#[derive(Serialize)]
struct Header<'a> {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<&'a str, String>,
    #[serde(flatten)]
    tensors: BTreeMap<&'a str, TensorHeader>,
}

#[derive(Serialize)]
struct TensorHeader {
    dtype: &'static str,
    shape: [usize; 1],
    data_offsets: [usize; 2],
}

impl Links {
    /// Name and version of this program, for the field `tool`.
    pub fn this_tool() -> String {
        format!("lnp {}", env!("CARGO_PKG_VERSION"))
    }

    /// Checks everything the file promises; done before writing and after reading.
    ///
    /// # Errors
    /// The first rule broken, in words, with the layer.
    pub fn check(&self) -> Result<()> {
        ensure!(
            (1..=LAYERS_MAX).contains(&self.layers.len()),
            "{} layers: 1 to {LAYERS_MAX} are possible",
            self.layers.len()
        );
        ensure!(
            (1..=NEURONS_MAX).contains(&self.neurons),
            "{} neurons a layer: 1 to {NEURONS_MAX} are possible",
            self.neurons
        );
        ensure!(
            !self.traces.is_empty() && self.corpora.len() == self.traces.len(),
            "{} corpora for {} traces: every trace needs its corpus, and at least one is needed",
            self.corpora.len(),
            self.traces.len()
        );
        for corpus in &self.corpora {
            ensure!(
                !corpus.is_empty() && !corpus.contains(','),
                "corpus name '{corpus}': it must not be empty or contain a comma"
            );
        }
        for TraceSource { file, sha256 } in &self.traces {
            ensure!(
                !file.is_empty() && !file.contains('/'),
                "trace '{file}': a file name without folders is needed"
            );
            ensure!(
                sha256.len() == 64
                    && sha256.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')),
                "trace '{file}': '{sha256}' is no SHA-256 (64 lower-case hexadecimal digits)"
            );
        }
        for (layer, links) in self.layers.iter().enumerate() {
            ensure!(
                links.neurons() == self.neurons,
                "layer {layer}: {} slots, expected {}",
                links.neurons(),
                self.neurons
            );
            links.check(self.profile_tokens).with_context(|| format!("layer {layer}"))?;
        }
        Ok(())
    }

    /// Writes the links file: to a temporary file beside it, synced and renamed, so that `path`
    /// holds either what it held before or the whole file.
    ///
    /// # Errors
    /// A rule of [`Links::check`] is broken, or the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let write = || -> Result<()> {
            let folder = match path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            };
            let mut builder = tempfile::Builder::new();
            builder.prefix(".links-").suffix(".tmp");
            #[cfg(unix)]
            {
                // A file for others to read, as far as the umask lets them: not tempfile's 0600.
                use std::os::unix::fs::PermissionsExt;
                builder.permissions(std::fs::Permissions::from_mode(0o666));
            }
            let temporary = builder.tempfile_in(folder)?;
            let mut out = BufWriter::new(temporary.as_file());
            self.write_to(&mut out)?;
            out.flush()?;
            drop(out);
            temporary.as_file().sync_all()?;
            temporary.persist(path).map_err(|error| error.error)?;
            // The name must last too; not every platform can sync a folder.
            #[cfg(unix)]
            File::open(folder)?.sync_all()?;
            Ok(())
        };
        write().map_err(|error| anyhow!("cannot write links file {}: {error:#}", path.display()))
    }

    /// Writes the bytes of the links file.
    ///
    /// # Errors
    /// A rule of [`Links::check`] is broken, or `out` can't be written.
    pub fn write_to(&self, out: &mut impl Write) -> Result<()> {
        self.check()?;
        let mut tensors: Vec<(String, &[u32])> = Vec::new();
        for (layer, links) in self.layers.iter().enumerate() {
            tensors.push((format!("neuron_of_slot.{layer}"), &links.neuron_of_slot));
            tensors.push((format!("link_begin.{layer}"), &links.link_begin));
            tensors.push((format!("active_count.{layer}"), &links.active_count));
        }
        tensors.sort();
        let mut offset = 0;
        let mut headers = BTreeMap::new();
        for (name, data) in &tensors {
            let data_offsets = [offset, offset + 4 * data.len()];
            offset = data_offsets[1];
            let header = TensorHeader { dtype: "U32", shape: [data.len()], data_offsets };
            headers.insert(name.as_str(), header);
        }
        let header = Header { metadata: self.metadata()?, tensors: headers };
        let mut json = serde_json::to_vec(&header)?;
        // As the safetensors crate does: the data begin at a multiple of 8 bytes.
        json.resize(json.len().next_multiple_of(8), b' ');
        ensure!(
            json.len() as u64 <= HEADER_BYTES_MAX,
            "header of {} bytes: at most {HEADER_BYTES_MAX} are possible",
            json.len()
        );
        out.write_all(&(json.len() as u64).to_le_bytes())?;
        out.write_all(&json)?;
        for (_, data) in tensors {
            for value in data {
                out.write_all(&value.to_le_bytes())?;
            }
        }
        Ok(())
    }

    fn metadata(&self) -> Result<BTreeMap<&'static str, String>> {
        let mut metadata = BTreeMap::from([
            ("format", FORMAT.to_owned()),
            ("order", self.order.name().to_owned()),
            ("layers", self.layers.len().to_string()),
            ("neurons", self.neurons.to_string()),
            ("profile_tokens", self.profile_tokens.to_string()),
            ("corpora", self.corpora.join(",")),
            ("model", self.model.clone()),
            ("traces", serde_json::to_string(&self.traces)?),
            ("tool", self.tool.clone()),
        ]);
        if let Order::Random { seed } = self.order {
            metadata.insert("seed", seed.to_string());
        }
        Ok(metadata)
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
