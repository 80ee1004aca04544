"""The compiled CUDA module (csrc/python/cuda_module.cpp)."""

from collections.abc import Sequence

_View = tuple[int, int, int, tuple[int, ...]]
_LossInput = tuple[tuple[int, ...], int, _View, _View, int, int | None]
_Place = tuple[int, int, int, int]

def ensemble_statistics(
    shape: tuple[int, ...],
    classes: int,
    view: _View,
    addresses: Sequence[int],
    weights: Sequence[float],
    temperatures: Sequence[float],
    reading: tuple[bool, int, bool, bool],
    finish: tuple[object, ...],
    place: tuple[int, int, int, int],
) -> None: ...
def ensemble_accumulate(
    shape: tuple[int, ...],
    member: _View,
    weight: float,
    temperature: float,
    reading: tuple[bool, int, bool, bool],
    layout: tuple[int, bool, bool, bool],
    state: _View,
    place: tuple[int, int, int, int],
) -> None: ...
def ensemble_finalize(
    shape: tuple[int, ...],
    state: _View,
    layout: tuple[int, bool, bool, bool],
    n_members: int,
    total_weight: float,
    reading: tuple[bool, int, bool, bool],
    finish: tuple[object, ...],
    place: tuple[int, int, int, int],
) -> None: ...
def segment_sums(
    shape: tuple[int, ...],
    problem: tuple[object, ...],
    sums: int,
    place: tuple[int, int, int, int],
) -> None: ...
def class_sums(
    input: _LossInput, wanted: tuple[bool, bool, bool], sums: int, place: _Place
) -> None: ...
def class_gradient(
    input: _LossInput,
    wanted: tuple[bool, bool, bool],
    factors: int,
    gradient: _View,
    place: _Place,
) -> None: ...
def bin_gaps(
    input: _LossInput, n_bins: int, soft: bool, thresholds: int, sums: int, place: _Place
) -> None: ...
def bin_gradient(
    input: _LossInput,
    n_bins: int,
    soft: bool,
    thresholds: int,
    factors: int,
    gradient: _View,
    place: _Place,
) -> None: ...
def temperature_sums(
    shape: tuple[int, ...],
    problem: tuple[object, ...],
    inverse_temperatures: Sequence[float],
    per_class: bool,
    counts: int,
    sums: int,
    place: _Place,
) -> None: ...
def loss_workspace_bytes(input: _LossInput, words: int) -> int: ...
def temperature_workspace_bytes(voxels: int, classes: int, per_class: bool) -> int: ...
def workspace_bytes(
    device: int,
    classes: int,
    planes: int,
    n_members: int,
    n_cells: int,
    rows: int,
    wide: bool,
) -> int: ...
def unavailable() -> str: ...
def variants() -> list[str]: ...
def variant() -> str: ...
def set_variant(name: str) -> None: ...
