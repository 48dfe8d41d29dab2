"""Linked neuron packs: traces, links and packs as numpy arrays.

>>> import lnp, numpy as np
>>> rng = np.random.default_rng(1)
>>> groups = rng.random((256, 8)) < 0.2             # which of 8 topics a token is of
>>> member = rng.integers(0, 8, 512)                # which topic a neuron belongs to
>>> active = groups[:, member]                      # (tokens, neurons)
>>> lnp.write_trace("profile.trace", [active], model="made up", corpus="none")
>>> lnp.write_trace("test.trace", [active[::2]], model="made up", corpus="none", split="test")

>>> trace = lnp.Trace("profile.trace")
>>> trace.bits(0).shape, trace.bits(0).flags.owndata   # the file's own bytes
((256, 64), False)
>>> bool((trace.active(0) == active).all())
True

>>> links = lnp.link("profile.trace", "greedy.links", order="greedy")
>>> member[links.neuron_of_slot(0)][:8]             # neurons of a topic lie together
array([4, 4, 4, 4, 4, 4, 4, 4])
>>> own = lnp.link("profile.trace", "model.links", order="identity")
>>> rows = lnp.replay("test.trace", links=["model.links", "greedy.links"], bundle_bytes=4096, cache_ratio=[0])
>>> reads = {row["strategy"]: row["reads_per_token"] for row in rows}
>>> reads["linked+collapse"] < reads["bundle+collapse"] / 10
True

What is wrong is an `Error` of one line:

>>> lnp.Trace("none.trace")
Traceback (most recent call last):
lnp.Error: none.trace: cannot open: No such file or directory (os error 2)

Arrays of `Trace`, `Links` and `Pack` are views of the file, mapped: nothing is read before it is looked at, they
cannot be written to, and they keep the file mapped for as long as they live. As with any mapped file, a file that is
cut meanwhile ends the process (SIGBUS); one that is put in its place by renaming, as all of lnp's are written, is
another file and does no harm. What is converted, and so copied, says so.
"""

from __future__ import annotations

import json
import mmap
import operator
import os
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypedDict, Union

import numpy as np
import numpy.typing as npt

from ._lnp import DeviceLaw, Error, __version__
from . import _lnp

__all__ = ["DeviceLaw", "Error", "LayerRow", "Links", "Pack", "Row", "Times", "Trace", "__version__", "link", "replay",
           "write_trace"]

Path = Union[str, "os.PathLike[str]"]
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
F32 = npt.NDArray[np.float32]


class _Mapped:
    """A file that was checked, and mapped."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path = os.fspath(path)
        try:
            with open(path, "rb") as file:
                facts = os.fstat(file.fileno())
                seconds, nanoseconds = divmod(facts.st_mtime_ns, 1_000_000_000)
                identity = [facts.st_dev, facts.st_ino, facts.st_size, seconds, nanoseconds]
                if identity != about["identity"]:
                    raise Error(f"{self.path}: replaced while it was opened")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise Error(f"{self.path}: cannot map: {error.strerror}") from None

    def _view(self, place: list[Any]) -> npt.NDArray[Any]:
        offset, dtype, shape = place
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.ndarray(shape, dtype, buffer=self._map, offset=offset)

    def _has(self, what: str, number: int, count: int) -> int:
        """The number, where there is such a layer or placement."""
        if not 0 <= operator.index(number) < count:
            raise Error(f"{self.path}: no {what} {number}: there are {count}")
        return number


class Trace(_Mapped):
    """Which neurons were active for each token of a text: a file that `lnp trace` or `write_trace` wrote.

    The header is checked when it is opened, the bits when they are linked or replayed.
    """

    def __init__(self, path: Path) -> None:
        about = json.loads(_lnp.trace_places(path))
        super().__init__(path, about)
        self.layers: int = about["layers"]
        self.neurons: int = about["neurons"]
        self.tokens: int = about["tokens"]
        #: positions restart every so many tokens
        self.window: int = about["window"]
        #: `model`, `corpus`, `split` and what else the file says of itself
        self.metadata: dict[str, str] = about["metadata"]
        self._places = about["places"]

    def __repr__(self) -> str:
        return f"Trace({self.path!r}): {self.layers} layers of {self.neurons} neurons, {self.tokens} tokens"

    def bits(self, layer: int) -> U8:
        """The bits of a layer, a view: `[tokens, ceil(neurons / 8)]`, bit k of byte j is neuron 8j + k."""
        return self._view(self._places[f"layer.{self._has('layer', layer, self.layers)}"])

    def active(self, layer: int) -> npt.NDArray[np.bool_]:
        """Which neurons were active, unpacked: `[tokens, neurons]`, a copy of a byte each."""
        return _unpacked(self.bits(layer), self.neurons)

    @property
    def token_ids(self) -> npt.NDArray[np.int32] | None:
        """The tokens, a view; none where the file has them not."""
        return self._optional("token_ids")

    @property
    def input_rows(self) -> npt.NDArray[np.int32] | None:
        """Which tokens `inputs` has, a view; none where the file has no inputs."""
        return self._optional("input_rows")

    def inputs(self, layer: int) -> npt.NDArray[np.float16] | None:
        """What a layer's FFN got at the tokens of `input_rows`, a view: `[rows, hidden]`."""
        return self._optional(f"inputs.{self._has('layer', layer, self.layers)}")

    def predicted(self, layer: int, horizon: int = 0) -> npt.NDArray[np.bool_] | None:
        """What predictors named so many layers before, unpacked as `active`; none where the file has it not."""
        self._has("layer", layer, self.layers)
        bits = self._optional(f"ahead.{horizon}.{layer}" if horizon else f"predicted.{layer}")
        return None if bits is None else _unpacked(bits, self.neurons)

    def _optional(self, name: str) -> npt.NDArray[Any] | None:
        return self._view(self._places[name]) if name in self._places else None


def _unpacked(bits: U8, neurons: int) -> npt.NDArray[np.bool_]:
    return np.unpackbits(bits, axis=1, count=neurons, bitorder="little").view(np.bool_)


class Links(_Mapped):
    """Which neuron lies in which slot of each layer: a file that `link` or `lnp link` wrote, all of it checked."""

    def __init__(self, path: Path) -> None:
        about = json.loads(_lnp.links_places(path))
        super().__init__(path, about)
        self.layers: int = about["layers"]
        self.neurons: int = about["neurons"]
        self.placements: int = about["placements"]
        self.order: str = about["order"]
        self.model: str = about["model"]
        self.corpora: list[str] = about["corpora"]
        self.profile_tokens: int = about["profile_tokens"]
        #: how the order was made
        self.notes: dict[str, str] = about["notes"]
        self._places = about["places"]

    def __repr__(self) -> str:
        return f"Links({self.path!r}): {self.order}, {self.layers} layers of {self.neurons} neurons"

    def neuron_of_slot(self, layer: int, placement: int = 0) -> U32:
        """The neuron in each slot, a view. A neuron that stands in several slots has copies."""
        return self._array("neuron_of_slot", layer, placement)

    def slot_of_neuron(self, layer: int, placement: int = 0) -> U32:
        """The first slot of each neuron, computed."""
        return np.unique(self.neuron_of_slot(layer, placement), return_index=True)[1].astype(np.uint32)

    def link_begin(self, layer: int, placement: int = 0) -> U32:
        """The first slot of each link, then the number of slots, a view."""
        return self._array("link_begin", layer, placement)

    def active_count(self, layer: int) -> U32:
        """In how many tokens of the profile each neuron was active, by neuron, a view."""
        return self._array("active_count", layer, 0)

    def _array(self, name: str, layer: int, placement: int) -> U32:
        self._has("layer", layer, self.layers)
        self._has("placement", placement, self.placements)
        return self._view(self._places[f"{name}.{layer}.{placement}" if placement else f"{name}.{layer}"])


class Pack(_Mapped):
    """A linked neuron pack. Its index is checked when it is opened; `verify` checks every byte."""

    def __init__(self, path: Path) -> None:
        about = json.loads(_lnp.pack_places(path))
        super().__init__(path, about)
        #: what `lnp inspect --json` prints
        self.description: dict[str, Any] = about["description"]
        shape = self.description["shape"]
        self.layers: int = shape["layers"]
        self.neurons: int = shape["neurons"]
        self.hidden: int = shape["hidden"]
        #: 2 (up, down) or 3 (gate, up, down)
        self.parts: int = shape["parts"]
        self.dtype: str = shape["dtype"]
        self.bundle_bytes: int = shape["bundle_stride"]
        self.placements: int = self.description["placements"]
        self.order: str = self.description["provenance"]["order"]
        self._places = about["places"]

    def __repr__(self) -> str:
        return (f"Pack({self.path!r}): {self.order}, {self.layers} layers of {self.neurons} bundles of "
                f"{self.bundle_bytes} bytes, {self.dtype}")

    def neuron_of_slot(self, layer: int, placement: int = 0) -> U32:
        """The neuron in each slot, a view. A neuron that stands in several slots has copies."""
        return self._array("neuron_of_slot", layer, placement)

    def slot_of_neuron(self, layer: int, placement: int = 0) -> U32:
        """The first slot of each neuron, a view."""
        return self._array("slot_of_neuron", layer, placement)

    def link_begin(self, layer: int, placement: int = 0) -> U32:
        """The first slot of each link, then the number of slots, a view."""
        return self._array("link_begin", layer, placement)

    def active_count(self, layer: int, placement: int = 0) -> U32:
        """In how many tokens of the profile each slot's neuron was active, by slot, a view."""
        return self._array("active_count", layer, placement)

    def bundle_checksums(self, layer: int, placement: int = 0) -> U32:
        """CRC-32 of each bundle, by slot, a view."""
        return self._array("bundle_checksums", layer, placement)

    def bundles(self, layer: int, placement: int = 0) -> U8:
        """The bundles as they lie on flash, by slot, a view: `[slots, bundle_bytes]`."""
        return self._array("bundles", layer, placement)

    def weights(self, layer: int, placement: int = 0) -> npt.NDArray[np.float16] | F32:
        """The weights of an f16 or f32 pack, by slot, a view: `[slots, parts, hidden]`.

        Row `slot_of_neuron(layer)[n]` is neuron n: (gate,) up, down. Other number types numpy has not: see `bundles`.
        """
        types = {"f16": "<f2", "f32": "<f4"}
        if self.dtype not in types:
            raise Error(f"{self.path}: numpy has no {self.dtype}: take the bytes of bundles()")
        weights = self.bundles(layer, placement).view(types[self.dtype])
        return weights.reshape(-1, self.parts, self.hidden)

    def neuron_bias(self, layer: int) -> F32 | None:
        """Bias of each neuron's activation input, by neuron, a view; none where the model has none."""
        return self._side("neuron_bias", layer)

    def up_bias(self, layer: int) -> F32 | None:
        """Bias of each neuron's product with its up part, by neuron, a view; none where the model has none."""
        return self._side("up_bias", layer)

    def output_bias(self, layer: int) -> F32 | None:
        """Bias of the FFN's output, a view; none where the model has none."""
        return self._side("output_bias", layer)

    def down_norm(self, layer: int) -> F32 | None:
        """Weights of the norm before the down columns, by neuron, a view; none where the model has none."""
        return self._side("down_norm", layer)

    def verify(self) -> None:
        """Checks every byte, as `lnp verify` does.

        Raises `Error` with the first thing that is wrong.
        """
        _lnp.verify(self.path)

    def _array(self, name: str, layer: int, placement: int) -> npt.NDArray[Any]:
        self._has("layer", layer, self.layers)
        self._has("placement", placement, self.placements)
        return self._view(self._places[layer][placement][name])

    def _side(self, name: str, layer: int) -> F32 | None:
        places = self._places[self._has("layer", layer, self.layers)][0]
        return self._view(places[name]) if name in places else None


def write_trace(
    path: Path,
    layers: Sequence[npt.ArrayLike],
    *,
    model: str,
    corpus: str,
    split: str = "profile",
    window: int | None = None,
    active: str = "activation != 0",
    token_ids: Iterable[int] | None = None,
) -> None:
    """Writes a trace of a model that runs elsewhere.

    `layers` has a `[tokens, neurons]` array for each layer, of which what is not zero is active; `window` says after how
    many tokens another text begins (all are one text where nothing is said), `active` in words what makes a neuron
    active. The bits are packed, and so copied.
    """
    arrays = [np.asarray(layer) != 0 for layer in layers]
    if not arrays:
        raise Error("no layers: one array for each is needed")
    for number, array in enumerate(arrays):
        if array.ndim != 2 or array.shape != arrays[0].shape:
            raise Error(f"layer {number} is an array of shape {array.shape}: the same (tokens, neurons) is needed of each")
    tokens, neurons = len(arrays[0]), arrays[0].shape[1]
    _lnp.write_trace(
        path, [np.packbits(array, axis=1, bitorder="little").tobytes() for array in arrays], neurons=neurons,
        tokens=tokens, window=tokens if window is None else window, model=model, corpus=corpus, split=split, active=active,
        token_ids=None if token_ids is None else [int(token) for token in token_ids],
    )


def link(
    traces: Path | Iterable[Path],
    output: Path,
    *,
    order: str = "refined",
    seed: int = 0,
    pin: float | None = None,
    law: DeviceLaw | str | None = None,
    bundle_bytes: int = 4096,
    memory: int = 2 << 30,
) -> Links:
    """Learns from traces which neurons lie next to each other, writes that to a links file and opens it.

    What `lnp link` does, and its options: `order` is one of identity, random, frequency, greedy, jaccard, refined,
    bisect, miss, copies:F, replicas:K and best.
    """
    _lnp.link(_paths(traces), output, order=order, seed=seed, pin=pin, law=_law(law), bundle_bytes=bundle_bytes,
              memory=memory)
    return Links(output)


class Times(TypedDict):
    """Microseconds a token."""

    mean: float
    p50: float
    p99: float


class LayerRow(TypedDict):
    """A layer's part of a row."""

    active_bundles_per_token: float
    reads_per_token: float
    bundles_per_run: float


class Row(TypedDict, total=False):
    """What a strategy cost on one order: a row of `lnp replay --json`."""

    strategy: str
    order: str
    pack: str
    dtype: str
    bundle_bytes: int
    placements: int
    collapse: str
    waits_per_token: float
    cache_policy: str
    cache_ratio: float
    cache_state: Literal["cold", "warm"]
    queue_depth: int
    tokens: int
    repeats: int
    simulated: bool
    active_bundles_per_token: float
    recall: float
    reads_per_active: float
    reads_per_token: float
    runs_per_token: float
    merges_per_token: float
    bundles_per_run: float
    bytes_read_per_token: float
    useful_bytes_per_token: float
    hit_rate: float
    io_us_per_token: Times
    predicted_io_us_per_token: float
    beliefs: list[dict[str, Any]]
    effective_mib_s: float
    device_mib_s: float
    bound_io_us_per_token: float
    layers: list[LayerRow]


def replay(
    trace: Path,
    *,
    packs: Path | Iterable[Path] = (),
    links: Path | Iterable[Path] = (),
    bundle_bytes: int | None = None,
    law: DeviceLaw | str | None = None,
    cache_ratio: float | Iterable[float] = 0.05,
    cache_policies: Iterable[str] | None = None,
    warm: bool = False,
    gap: int | None = None,
    adapt: bool = False,
    predicted: bool = False,
    tokens: int | None = None,
    repeats: int = 3,
    queue_depth: int = 32,
) -> list[Row]:
    """Replays a trace on packs, or on links of bundles of so many bytes, on the simulated device: every strategy.

    What `lnp replay --simulate --json` does and its options; the rows are the same. Nothing is read but indexes. What
    makes a comparison doubtful, as an order that was made from the very trace, is a warning. To read from a real device
    there is the command line.
    """
    ratios = list(cache_ratio) if isinstance(cache_ratio, Iterable) else [cache_ratio]
    rows, doubts = _lnp.replay(
        trace, packs=_paths(packs), links=_paths(links), bundle_bytes=bundle_bytes, law=_law(law), cache_ratio=ratios,
        cache_policies=None if cache_policies is None else list(cache_policies), warm=warm, gap=gap, adapt=adapt,
        predicted=predicted, tokens=tokens, repeats=repeats, queue_depth=queue_depth,
    )
    for doubt in doubts:
        warnings.warn(doubt, stacklevel=2)
    found: list[Row] = json.loads(rows)
    return found


def _paths(paths: Path | Iterable[Path]) -> list[Path]:
    return [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)


def _law(law: DeviceLaw | str | None) -> DeviceLaw | None:
    return DeviceLaw.parse(law) if isinstance(law, str) else law
