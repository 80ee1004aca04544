"""The compiled CPU module (csrc/python/cpu_module.cpp)."""

from collections.abc import Sequence

_View = tuple[int, int, int, tuple[int, ...]]
_Extents = tuple[int, int, int]

def ensemble_statistics(
    shape: tuple[int, ...],
    classes: int,
    views: tuple[_View, ...],
    weights: Sequence[float],
    temperatures: Sequence[float],
    reading: tuple[bool, int, bool, bool],
    finish: tuple[object, ...],
    n_threads: int,
) -> None: ...
def ensemble_accumulate(
    shape: tuple[int, ...],
    member: _View,
    weight: float,
    temperature: float,
    reading: tuple[bool, int, bool, bool],
    layout: tuple[int, bool, bool, bool],
    state: _View,
    n_threads: int,
) -> None: ...
def ensemble_finalize(
    shape: tuple[int, ...],
    state: _View,
    layout: tuple[int, bool, bool, bool],
    n_members: int,
    total_weight: float,
    reading: tuple[bool, int, bool, bool],
    finish: tuple[object, ...],
    n_threads: int,
) -> None: ...

_TemperatureProblem = tuple[
    int, _View, _View, _View | None, int | None, bool, bool, bool, float, float
]

def temperature_sums(
    shape: tuple[int, ...],
    problem: _TemperatureProblem,
    inverse_temperatures: Sequence[float],
    per_class: bool,
    counts: int,
    sums: int,
    n_threads: int,
) -> None: ...

_LossInput = tuple[tuple[int, ...], int, _View, _View, int, int | None]

def class_sums(
    input: _LossInput, wanted: tuple[bool, bool, bool], sums: int, n_threads: int
) -> None: ...
def class_gradient(
    input: _LossInput,
    wanted: tuple[bool, bool, bool],
    factors: int,
    gradient: _View,
    n_threads: int,
) -> None: ...
def bin_gaps(
    input: _LossInput, n_bins: int, soft: bool, thresholds: int, sums: int, n_threads: int
) -> None: ...
def bin_gradient(
    input: _LossInput,
    n_bins: int,
    soft: bool,
    thresholds: int,
    factors: int,
    gradient: _View,
    n_threads: int,
) -> None: ...
def segment_sums(
    shape: tuple[int, ...], problem: tuple[object, ...], sums: int, n_threads: int
) -> None: ...
def interior(
    labels: int, extents: _Extents, limit: int, reach: int, inside: int, n_threads: int
) -> None: ...
def patch_maxima_f32(
    values: int,
    labels: int,
    extents: _Extents,
    classes: int,
    size: int,
    multilabel: bool,
    sums: int,
    largest: int,
    n_threads: int,
) -> None: ...
def patch_maxima_f64(
    values: int,
    labels: int,
    extents: _Extents,
    classes: int,
    size: int,
    multilabel: bool,
    sums: int,
    largest: int,
    n_threads: int,
) -> None: ...
def count_components(
    labels: int, extents: _Extents, classes: int, smallest: int, counts: int
) -> None: ...
def overlaps(
    labels: Sequence[int], voxels: int, classes: int, found: int, n_threads: int
) -> None: ...
def read_bytes(address: int, n_bytes: int, n_threads: int) -> int: ...
def isa() -> str: ...
def isa_levels() -> list[str]: ...
def set_isa(name: str) -> None: ...
