"""One logical tensor that several stored ones encode: what every quantisation layout is to the reader.

A layout is a file here with a `find` function: it looks at stored names and shapes, and returns the logical
tensors it can account for. Shapes are checked against each other before anything is read, so that no read
allocates more than a small multiple of the bytes that the file really has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from detector.errors import MalformedWeightsError, UnreadableTensorError
from detector.formats.safetensors_header import StoredTensor
from detector.formats.stored import StoredFiles

if TYPE_CHECKING:
    import torch

Stored = Mapping[str, StoredTensor]

FLOATS = frozenset({"F16", "BF16", "F32"})
"""Types that the packed layouts store their scales in."""


class Encoded(Protocol):
    """One logical tensor."""

    @property
    def dtype(self) -> str:
        """Scheme, such as `GPTQ-INT4-G128`: what the edit `quantized` names."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor it stands for."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """Stored names it is made of."""
        ...

    def rows(self, files: StoredFiles, first: int, last: int) -> torch.Tensor:
        """Dequantised rows, float32; `0 ≤ first ≤ last ≤ shape[0]`.

        Raises:
            UnreadableTensorError: what the encoding means is not certain.
            MalformedWeightsError: the numbers inside contradict the shapes.
        """
        ...


@dataclass(frozen=True, slots=True)
class Undecoded:
    """A tensor whose encoding is recognised but not decoded."""

    dtype: str
    shape: tuple[int, ...]
    parts: tuple[str, ...]
    reason: str

    def rows(self, files: StoredFiles, first: int, last: int) -> torch.Tensor:  # noqa: ARG002  # of the protocol
        """Refuse, with the reason.

        Raises:
            UnreadableTensorError: always.
        """
        raise UnreadableTensorError(f"{self.parts[0][:120]}: {self.reason}")


def modules_with(stored: Stored, suffix: str) -> list[str]:
    """Stems of the stored names that end in `suffix`, sorted: `a.b` for `a.b.qweight` and `.qweight`."""
    return sorted(name.removesuffix(suffix) for name in stored if name.endswith(suffix) and name != suffix)


def present(stored: Stored, *names: str) -> tuple[str, ...]:
    """Those of `names` that are stored, in the order given."""
    return tuple(name for name in names if name in stored)


def bit_stream(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes along the last dimension, uint8: code k lies at bit k·bits of the little-endian bytes of a row.

    Args:
        packed: (…, w) of any integer type.
        bits: 2, 3, 4, 5, 6 or 8.
    """
    import torch

    # A fresh copy: `contiguous` leaves a dimension of one element any stride, and then bytes have no view.
    octets = torch.empty(packed.shape, dtype=packed.dtype).copy_(packed).view(torch.uint8)
    lead = octets.shape[:-1]
    if bits == 8:
        return octets
    if bits in {3, 5, 6}:  # eight codes in as many bytes as a code has bits
        kind = torch.int32 if bits == 3 else torch.int64
        pieces = octets.reshape(*lead, octets.shape[-1] // bits, bits).to(kind)
        wide = (pieces << torch.arange(0, 8 * bits, 8, dtype=kind)).sum(-1, dtype=kind)
        shifts = torch.arange(0, 8 * bits, bits, dtype=kind)
        codes = ((wide[..., None] >> shifts) & ((1 << bits) - 1)).to(torch.uint8)
        return codes.reshape(*lead, octets.shape[-1] // bits * 8)
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8)
    codes = (octets[..., None] >> shifts) & ((1 << bits) - 1)
    return codes.reshape(*lead, octets.shape[-1] * (8 // bits))


def group_size(length: int, groups: int, hint: int | None) -> int | None:
    """Elements a group when `length` elements lie in `groups` groups, of which the last may be short.

    None when neither the numbers nor the hint settle it.
    """
    if groups <= 0 or length <= 0 or groups > length:
        return None
    if length % groups == 0:
        return length // groups
    if hint is not None and -(-length // hint) == groups:
        return hint
    sizes = [size for size in (16, 32, 64, 128, 256, 512, 1024) if -(-length // size) == groups]
    return sizes[0] if len(sizes) == 1 else None


def grain(size: int | None, length: int) -> str:
    """What shares a scale, in the name of a scheme: a row of `length` elements, or groups of `size`."""
    return "ROW" if size in {None, length} else f"G{size}"


def input_groups(files: StoredFiles, order: str | None, inputs: int, size: int, count: int) -> torch.Tensor:
    """Group of each of the `inputs` input features, int64.

    Args:
        files: to read from.
        order: stored tensor that names each feature's group (activation order); None: they lie side by side.
        inputs: input features.
        size: features a group.
        count: groups there are.

    Raises:
        MalformedWeightsError: a feature belongs to a group that does not exist.
    """
    import torch

    if order is None:
        return torch.arange(inputs) // size
    groups = files.tensor(order).to(torch.int64)
    sane = bool(((groups >= 0) & (groups < count)).all())
    check(order, holds=sane, what="names a group that does not exist")
    return groups


def is_input_order(part: StoredTensor, inputs: int) -> bool:
    """Whether a stored tensor can name the group of each input feature."""
    return part.shape == (inputs,) and part.dtype in {"I32", "I64"}


def check(name: str, *, holds: bool, what: str) -> None:
    """Refuse numbers that contradict each other.

    Raises:
        MalformedWeightsError: it does not hold.
    """
    if not holds:
        raise MalformedWeightsError(f"{name[:120]}: {what}")
