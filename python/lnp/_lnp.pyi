# What the Rust part offers; `.ci/python` compares this with it.
import os
from typing import final

__all__ = [
    "DeviceLaw", "Error", "__version__", "link", "links_places", "pack_places", "replay", "trace_places", "verify", "write_trace"
]
__version__: str

class Error(ValueError): ...

@final
class DeviceLaw:
    """What a batch of reads costs on a device: t = t0 + combine(a * reads, bytes / B)."""

    def __new__(cls, a_us: float, b_mib_s: float, combine: str = "sum", t0_us: float = 0.0) -> DeviceLaw: ...
    @staticmethod
    def parse(text: str) -> DeviceLaw: ...
    @staticmethod
    def read(path: str | os.PathLike[str]) -> DeviceLaw: ...
    @staticmethod
    def oneplus_12() -> DeviceLaw: ...
    @property
    def t0_us(self) -> float: ...
    @property
    def a_us(self) -> float: ...
    @property
    def b_mib_s(self) -> float: ...
    @property
    def combine(self) -> str: ...
    @property
    def gap_bytes(self) -> int: ...
    def time_us(self, reads: int, bytes: int) -> float: ...
    def transfer_us(self, bytes: int) -> float: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

def trace_places(path: str | os.PathLike[str]) -> str: ...
def links_places(path: str | os.PathLike[str]) -> str: ...
def pack_places(path: str | os.PathLike[str]) -> str: ...
def verify(path: str | os.PathLike[str]) -> None: ...
def write_trace(
    path: str | os.PathLike[str],
    layers: list[bytes],
    *,
    neurons: int,
    tokens: int,
    window: int,
    model: str,
    corpus: str,
    split: str,
    active: str,
    token_ids: list[int] | None = None,
) -> None: ...
def link(
    traces: list[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    order: str,
    seed: int,
    pin: float | None,
    law: DeviceLaw | None,
    bundle_bytes: int,
    memory: int,
) -> None: ...
def replay(
    trace: str | os.PathLike[str],
    *,
    packs: list[str | os.PathLike[str]],
    links: list[str | os.PathLike[str]],
    bundle_bytes: int | None,
    law: DeviceLaw | None,
    cache_ratio: list[float],
    cache_policies: list[str] | None,
    warm: bool,
    gap: int | None,
    adapt: bool,
    predicted: bool,
    tokens: int | None,
    repeats: int,
    queue_depth: int,
) -> tuple[str, list[str]]: ...
