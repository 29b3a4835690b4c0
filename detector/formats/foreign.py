"""Quantisation methods that are recognised by the names of their parts, and not decoded.

A tensor of theirs is listed under the name and with the shape that it would have unquantised, where the parts
tell it, and is unreadable with the method's name. Where the shape is nowhere to be seen the whole checkpoint
is refused, for the same reason: its parts would otherwise look like tensors that came, and all weights gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from detector.errors import UnreadableTensorError
from detector.formats.encoded import Encoded, Stored, Undecoded, modules_with, present

Shape = tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Method:
    """What a method's layers look like."""

    name: str
    mark: str
    """Suffix of a part that every layer has."""
    needed: tuple[str, ...]
    """Parts that lie beside it."""
    beside: tuple[str, ...]
    """Parts that may."""
    shape: Callable[[Stored, str], Shape]


def _unknown(stored: Stored, stem: str) -> Shape:  # noqa: ARG001  # as the others
    return None


def _of_vectors(inputs: str, outputs: str) -> Callable[[Stored, str], Shape]:
    """A vector for each side: signs or factors of a rotation."""

    def shape(stored: Stored, stem: str) -> Shape:
        columns, rows = stored[f"{stem}.{inputs}"].shape, stored[f"{stem}.{outputs}"].shape
        return (rows[0], columns[0]) if len(rows) == len(columns) == 1 and rows[0] and columns[0] else None

    return shape


def _of_exl2(stored: Stored, stem: str) -> Shape:
    order, scales = stored[f"{stem}.q_invperm"].shape, stored[f"{stem}.q_scale"].shape
    known = len(order) == 1 and len(scales) == 2 and order[0] and scales[1]
    return (8 * scales[1], order[0]) if known else None


def _of_aqlm(stored: Stored, stem: str) -> Shape:
    codes, books = stored[f"{stem}.codes"].shape, stored[f"{stem}.codebooks"].shape
    known = len(codes) == 3 and len(books) == 4 and 0 not in codes and 0 not in books
    return (codes[0] * books[2], codes[1] * books[3]) if known else None


METHODS = (
    Method("EXL2", ".q_weight", ("q_invperm", "q_scale", "q_scale_max", "q_groups"), ("q_perm",), _of_exl2),
    Method("EXL3", ".trellis", ("suh", "svh"), ("mcg", "mul1", "su", "sv"), _of_vectors("suh", "svh")),
    Method("AQLM", ".codes", ("codebooks", "scales"), (), _of_aqlm),
    Method("QuIP#", ".Qidxs", ("SU", "SV"), ("Wscale", "codebook_id", "Qidxs_1"), _of_vectors("SU", "SV")),
    Method("VPTQ", ".indices", ("centroids.weight",), (), _unknown),
    Method("SpQR", ".dense_weights", ("row_offsets",), (), _unknown),
    Method("HIGGS", ".tables2", ("tables", "scales"), (), _unknown),
    Method("torchao", ".weight:_data", (), (), _unknown),
    Method("torchao", "_weight_qdata", (), (), _unknown),
    Method("torchao", ".weight_qdata", (), (), _unknown),
    Method("quanto", ".weight._data", ("weight._scale",), (), _unknown),
    Method("Marlin", ".B", ("s", "workspace"), (), _unknown),
)


def find(stored: Stored) -> dict[str, Encoded]:
    """Every tensor of one of the methods.

    Raises:
        UnreadableTensorError: a method whose parts do not tell the shape of what they stand for.
    """
    found: dict[str, Encoded] = {}
    for method in METHODS:
        for stem in modules_with(stored, method.mark):
            needed = tuple(f"{stem}.{part}" for part in method.needed)
            if len(present(stored, *needed)) < len(needed):
                continue
            shape = method.shape(stored, stem)
            if shape is None:
                raise UnreadableTensorError(f"{stem[:120]} is stored by {method.name}, which is not decoded")
            beside = present(stored, *(f"{stem}.{part}" for part in method.beside))
            parts = (f"{stem}{method.mark}", *needed, *beside)
            found[f"{stem}.weight"] = Undecoded(method.name, shape, parts, f"{method.name} is not decoded")
    return found
