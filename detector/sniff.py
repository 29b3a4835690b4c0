"""What a file is by its first bytes, whatever it is called."""

from __future__ import annotations

import zlib
from enum import StrEnum

PROBE_BYTES = 512
"""A tar archive's magic stands at 257."""

_COMPRESSED = (
    *(
        b"7z\xbc\xaf\x27\x1c",
        b"\x1f\x8b\x08",
        b"BZh",
        b"\xfd7zXZ",
        b"(\xb5/\xfd",
        b"Rar!",
        b"MSCF",
        b"\x04\x22\x4d\x18",
    ),
)
_ZLIB = (b"x\x9c", b"x\x01", b"x\xda")
_PROGRAMS = (
    *(b"\x7fELF", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe"),
    *(b"\xca\xfe\xba\xbe\x00", b"\0asm\x01\0\0\0", b"dex\n03", b"#!/", b"#! /", b"L\0\0\0\x01\x14\x02\0"),
)
"""ELF, Mach-O, Java classes and universal binaries, WebAssembly, Dalvik, scripts, Windows links."""


class Content(StrEnum):
    """Kinds that matter here; the value is a phrase for a note."""

    PROGRAM = "a program"
    ZIP = "a zip archive"
    TAR = "a tar archive"
    COMPRESSED = "a compressed file"
    PICKLE = "a pickle"
    NUMPY = "a NumPy array"
    HDF5 = "an HDF5 file"
    GGUF = "a GGUF file"
    SAFETENSORS = "a safetensors file"
    OTHER = "something else"


def sniff(head: bytes) -> Content:
    """The kind of a file by its first `PROBE_BYTES`, or all of them if it is shorter."""
    if _is_program(head):
        return Content.PROGRAM
    for magic, kind in (
        (b"PK\x03\x04", Content.ZIP),
        (b"\x93NUMPY", Content.NUMPY),
        (b"\x89HDF\r\n\x1a\n", Content.HDF5),
    ):
        if head.startswith(magic):
            return kind
    if head.startswith(b"GGUF") and 0 in head[4:8]:
        return Content.GGUF  # a text can begin with these letters, and its version has no zero
    if head[257:262] == b"ustar":
        return Content.TAR
    return _packed_or_weights(head)


def _packed_or_weights(head: bytes) -> Content:
    if head.startswith(_COMPRESSED) or (head.startswith(_ZLIB) and _inflates(head)):
        return Content.COMPRESSED
    if head[8:9] == b"{" and head[5:8] == b"\0\0\0":
        return Content.SAFETENSORS
    return Content.PICKLE if head[:1] == b"\x80" and head[1:2] <= b"\x05" else Content.OTHER


def _inflates(head: bytes) -> bool:
    """Two bytes of zlib occur in random weights; what follows them rarely unfolds."""
    try:
        return bool(zlib.decompressobj().decompress(head, 1 << 12))
    except zlib.error:
        return False


def _is_program(head: bytes) -> bool:
    # A DOS header ends with the offset of the real one; two letters alone occur in random weights.
    windows = head.startswith(b"MZ") and 64 <= int.from_bytes(head[60:64], "little") <= 4096
    return windows or head.startswith(_PROGRAMS)
