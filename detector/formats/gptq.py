"""GPTQ checkpoints (AutoGPTQ, GPTQModel, AutoRound): codes packed along the input features.

For a linear layer of `out × in` at b bits: `qweight` (in·b/32, out) int32, `qzeros` (groups, out·b/32) int32,
`scales` (groups, out), `g_idx` (in) naming each input's group. Codes are the b-bit fields of a little-endian
stream; three bits straddle words. value = (code − zero) · scale. Version 1 stores zero − 1, version 2 zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.errors import UnreadableTensorError
from detector.formats.encoded import (
    FLOATS,
    Encoded,
    Stored,
    Undecoded,
    bit_stream,
    check,
    grain,
    group_size,
    input_groups,
    is_input_order,
    modules_with,
    present,
)
from detector.formats.hints import BITS, Hints
from detector.formats.safetensors_header import StoredTensor
from detector.formats.stored import StoredFiles

if TYPE_CHECKING:
    import torch

VERSION_1 = frozenset({"gptq", "auto_gptq", "auto_round:auto_gptq", "auto_round:gptq"})
FOREIGN = frozenset({"marlin", "bitblas", "exllama", "exllamav2"})
"""Layouts whose words are shuffled for one kernel."""


@dataclass(frozen=True, slots=True)
class Gptq:
    """One linear layer."""

    dtype: str
    shape: tuple[int, int]
    parts: tuple[str, ...]
    stem: str
    bits: int
    group: int
    version: int | None
    """Convention of the zero points; None when only the zeros themselves can tell."""

    def rows(self, files: StoredFiles, first: int, last: int) -> torch.Tensor:
        """Dequantised rows."""
        import torch

        packed = files.whole(f"{self.stem}.qweight")[:, first:last]
        codes = bit_stream(packed.T.contiguous(), self.bits).to(torch.float32)
        zeros = self._zeros(files)[:, first:last].to(torch.float32)
        scales = files.tensor(f"{self.stem}.scales")[:, first:last].to(torch.float32)
        groups = self._groups(files)
        return (codes - zeros.T[:, groups]) * scales.T[:, groups]

    def _zeros(self, files: StoredFiles) -> torch.Tensor:
        """Codes of zero, (groups, out), small integers."""
        import torch

        stored = bit_stream(files.tensor(f"{self.stem}.qzeros"), self.bits).to(torch.int32)
        half = 1 << (self.bits - 1)
        version = self.version
        if version is None:
            # Symmetric quantisation has every zero at the middle of the range: the stored number tells.
            if bool((stored == half - 1).all()):
                version = 1
            elif bool((stored == half).all()):
                version = 2
            else:
                raise UnreadableTensorError(
                    f"{self.stem[:120]}: asymmetric zero points, and no configuration says which GPTQ version"
                )
        return (stored + 1) % (1 << self.bits) if version == 1 else stored

    def _groups(self, files: StoredFiles) -> torch.Tensor:
        count = files.tensors[f"{self.stem}.scales"].shape[0]
        name = f"{self.stem}.g_idx"
        return input_groups(files, name if name in self.parts else None, self.shape[1], self.group, count)


def find(stored: Stored, hints: Hints) -> dict[str, Encoded]:
    """Every module with `qweight`, `qzeros` and `scales` whose shapes are GPTQ's."""
    found: dict[str, Encoded] = {}
    for stem in modules_with(stored, ".qweight"):
        encoded = _module(stem, stored, hints)
        if encoded is not None:
            found[f"{stem}.weight"] = encoded
    return found


def _module(stem: str, stored: Stored, hints: Hints) -> Encoded | None:
    names = present(stored, *(f"{stem}.{part}" for part in ("qweight", "qzeros", "scales", "g_idx")))
    if names[:3] != (f"{stem}.qweight", f"{stem}.qzeros", f"{stem}.scales"):
        return None
    bits = _bits(*(stored[name] for name in names[:3]))
    if bits is None:
        return None
    groups, outputs = stored[names[2]].shape
    inputs = 32 * stored[names[0]].shape[0] // bits
    shape = (outputs, inputs)
    if len(names) > 3:
        order = stored[names[3]]
        sane = is_input_order(order, inputs)
        check(names[3], holds=sane, what=f"{list(order.shape)} {order.dtype} for {inputs} input features")
    size = group_size(inputs, groups, hints.group)
    if hints.layout in FOREIGN:
        return Undecoded(f"GPTQ-INT{bits}", shape, names, f"the words are shuffled for {hints.layout}")
    if size is None and len(names) < 4:
        return Undecoded(
            f"GPTQ-INT{bits}", shape, names, f"{groups} groups for {inputs} inputs: which is unclear"
        )
    dtype = f"GPTQ-INT{bits}-{grain(size, inputs)}{'-ACTORDER' if hints.act_order else ''}"
    return Gptq(dtype, shape, names, stem, bits, size or inputs, _version(hints))


def _bits(words: StoredTensor, zeros: StoredTensor, scales: StoredTensor) -> int | None:
    """Bits a code, which the zero points give away; None when the three shapes are not GPTQ's."""
    if any(len(part.shape) != 2 or 0 in part.shape for part in (words, zeros, scales)):
        return None
    groups, outputs = scales.shape
    bits, rest = divmod(32 * zeros.shape[1], outputs)
    types = words.dtype == zeros.dtype == "I32" and scales.dtype in FLOATS
    if not types or rest or bits not in BITS or words.shape[1] != outputs or zeros.shape[0] != groups:
        return None
    whole = 32 * words.shape[0] % bits == 0 and (bits != 3 or zeros.shape[1] % 3 == 0)
    return bits if whole else None


def _version(hints: Hints) -> int | None:
    if hints.layout == "gptq_v2":
        return 2
    return 1 if hints.layout in VERSION_1 or hints.method == "gptq" else None
