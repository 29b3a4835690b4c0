"""Element types of safetensors files, and how torch reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detector.errors import UnreadableTensorError

if TYPE_CHECKING:
    import torch

BITS = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
    "C64": 64,
    "I64": 64,
    "I32": 32,
    "I16": 16,
    "I8": 8,
    "U64": 64,
    "U32": 32,
    "U16": 16,
    "U8": 8,
    "BOOL": 8,
}
"""Bits an element, for every type that safetensors 0.8 defines."""

_TORCH = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "BOOL": "bool",
}

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Types that hold weights themselves, rather than codes that need a scale."""


def torch_dtype(name: str) -> torch.dtype:
    """The torch type of a container's element type.

    Raises:
        UnreadableTensorError: torch has no such type here.
    """
    import torch

    if name not in _TORCH:
        raise UnreadableTensorError(f"element type {name} is not decoded")
    dtype = getattr(torch, _TORCH[name], None)  # the youngest types are missing in old torch
    if not isinstance(dtype, torch.dtype):
        raise UnreadableTensorError(f"element type {name} is not decoded")
    return dtype


def from_bytes(data: bytes, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor that owns a copy of little-endian `data`.

    Raises:
        UnreadableTensorError: torch has no such type here.
    """
    import torch

    kind = torch_dtype(dtype)
    if not data:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(bytearray(data), dtype=kind).reshape(shape)
