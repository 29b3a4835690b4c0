"""How the change of a matrix spreads over directions, against what rounding alone would leave."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from reports.diff import DiffDocument, TensorView
from reports.scan import SpectrumView


class ChangedTensor(Protocol):
    """What is needed of a tensor; `detector.interface.TensorDiff` and `reports.diff.TensorView` have it."""

    @property
    def name(self) -> str: ...
    @property
    def module(self) -> str: ...
    @property
    def relative_norm(self) -> float: ...
    @property
    def rank(self) -> int | None: ...
    @property
    def energy(self) -> tuple[float, ...]: ...
    @property
    def floor_ratio(self) -> float | None: ...


def spectra(document: DiffDocument, most: int) -> tuple[SpectrumView, ...]:
    """Those of the most changed matrices of a comparison; see `of_tensors`."""
    return of_tensors((tensor for tensor in document.tensors if isinstance(tensor, TensorView)), most)


def of_tensors(tensors: Iterable[ChangedTensor], most: int) -> tuple[SpectrumView, ...]:
    """Those of the most changed matrices, at most two of a module so that they differ; the largest first."""
    chosen: list[ChangedTensor] = []
    of_module: dict[str, int] = {}
    matrices = [tensor for tensor in tensors if tensor.energy]
    for tensor in sorted(matrices, key=lambda tensor: (-tensor.relative_norm, tensor.name)):
        count = of_module.get(tensor.module, 0)
        if count < 2:
            of_module[tensor.module] = count + 1
            chosen.append(tensor)
        if len(chosen) == most:
            break
    return tuple(_spectrum(tensor) for tensor in chosen)


def _spectrum(tensor: ChangedTensor) -> SpectrumView:
    left, rest = [1.0], 1.0
    for share in tensor.energy:
        rest = min(1.0, max(0.0, rest - share))
        left.append(rest)
    ratio = tensor.floor_ratio
    floor = None if ratio is None or ratio <= 0 else min(1.0, 1 / ratio)
    return SpectrumView(tensor.name, tensor.relative_norm, tensor.rank, tuple(left), floor)
