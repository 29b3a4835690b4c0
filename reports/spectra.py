"""How the change of a matrix spreads over directions, against what rounding alone would leave."""

from __future__ import annotations

from dataclasses import dataclass

from reports.diff import DiffDocument, TensorView


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The change of one matrix."""

    name: str
    relative_norm: float
    rank: int | None
    left: tuple[float, ...]
    """Share of the change's energy outside its r strongest directions, for r = 0, 1, 2…; between 0 and 1."""
    floor: float | None
    """Share of its energy that rounding to the fork's type leaves in any case; None where it is not known."""


def spectra(document: DiffDocument, most: int) -> tuple[Spectrum, ...]:
    """Those of the most changed matrices, at most two of a module so that they differ; the largest first."""
    chosen: list[TensorView] = []
    of_module: dict[str, int] = {}
    matrices = [tensor for tensor in document.tensors if isinstance(tensor, TensorView) and tensor.energy]
    for tensor in sorted(matrices, key=lambda tensor: (-tensor.relative_norm, tensor.name)):
        count = of_module.get(tensor.module, 0)
        if count < 2:
            of_module[tensor.module] = count + 1
            chosen.append(tensor)
        if len(chosen) == most:
            break
    return tuple(_spectrum(tensor) for tensor in chosen)


def _spectrum(tensor: TensorView) -> Spectrum:
    left, rest = [1.0], 1.0
    for share in tensor.energy:
        rest = min(1.0, max(0.0, rest - share))
        left.append(rest)
    ratio = tensor.floor_ratio
    floor = None if ratio is None or ratio <= 0 else min(1.0, 1 / ratio)
    return Spectrum(tensor.name, tensor.relative_norm, tensor.rank, tuple(left), floor)
