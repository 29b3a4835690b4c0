"""Bytes of hostile files, put together by hand: no library would write most of them."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

SYSTEM = b"cos\nsystem\n"
"""The opcode that names os.system; without a call behind it, it is inert even when loaded."""


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    """One row of a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def safetensors(header: object, data: bytes = b"\0" * 8) -> bytes:
    """A file with this header: an object, or its very text."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def string(text: str | bytes) -> bytes:
    """A GGUF string."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def value(key: str, kind: int, data: bytes) -> bytes:
    """A GGUF key and its value."""
    return string(key) + struct.pack("<I", kind) + data


def tensor(name: str, dims: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    """A GGUF tensor's description."""
    places = struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return string(name) + places + struct.pack("<IQ", kind, offset)


def gguf(
    keys: Iterable[bytes] = (), tensors: Iterable[bytes] = (), data: bytes = b"", version: int = 3
) -> bytes:
    """A GGUF file."""
    keys, tensors = list(keys), list(tensors)
    start = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
    header = start + b"".join(keys) + b"".join(tensors)
    return header + b"\0" * (-len(header) % 32) + data


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def torch_zip(pickled: bytes, **more: bytes) -> bytes:
    """A zip archive as torch.save lays it out."""
    members = {"archive/data.pkl": pickled, "archive/version": b"3\n", "archive/data/0": b"\0" * 8}
    return zipped({**members, **{name.replace("__", "/"): content for name, content in more.items()}})


def tar(members: Iterable[tuple[str, bytes, bytes]]) -> bytes:
    """A ustar archive of (name, type flag, content)."""
    parts = []
    for name, flag, content in members:
        header = bytearray(512)
        header[:100] = name.encode()[:100].ljust(100, b"\0")
        header[100:108] = b"0000644\0"
        header[124:136] = b"%011o\0" % len(content)
        header[156:157] = flag
        header[257:265] = b"ustar\x0000"
        parts.append(bytes(header) + content + b"\0" * (-len(content) % 512))
    return b"".join(parts) + b"\0" * 1024


def array(dtype: str, data: bytes) -> bytes:
    """A NumPy array file."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': (1,), }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + data


def imports(module: str, name: str) -> bytes:
    """A protocol-4 pickle that imports a name and does nothing with it."""
    parts = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
    return b"\x80\x04" + parts + b"\x93."


def executable() -> bytes:
    """A Windows program's first bytes."""
    return b"MZ" + bytes(58) + (128).to_bytes(4, "little") + bytes(200)
