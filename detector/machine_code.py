"""Machine code that numba made once, kept in a file, loaded by LLVM alone.

To import numba and let it load what it kept takes .6 s of processor time, as long as comparing 2 GB does;
this takes a tenth. The file has the trust of the compiled Python beside it: it lies in the package's
`__pycache__`, or where that cannot be written in the user's own cache, and is made again for another
processor, another version of the compiler or another text of the function.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.metadata
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any

_CHECK = 32
"""Bytes of a file's own hash before its content: LLVM ends the process over a broken object."""
_END = b"\0"
"""Of the function's name."""
_loading = Lock()


class Kept:
    """A function in machine code that is found, or made, when it is called first."""

    def __init__(
        self, text: Path, number: int, make: Callable[[], tuple[bytes, str]], arguments: tuple[Any, ...]
    ) -> None:
        """Describe it.

        Args:
            text: the file it is compiled from.
            number: tells functions of one text apart.
            make: compiles it: an object file, and the name of the function in it.
            arguments: ctypes types, after the two that numba puts before all others.
        """
        self._text, self._number, self._make = text, number, make
        self._type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *arguments)
        self._engine: Any = None
        self._function: Callable[..., int] | None = None

    def __call__(self, *arguments: object) -> None:
        """Call it without the interpreter's lock."""
        function = self._function or self._load()
        function(_NOWHERE, _NOWHERE, *arguments)

    def _load(self) -> Callable[..., int]:
        from llvmlite import binding

        with _loading:
            if self._function is not None:
                return self._function
            binding.initialize_native_target()
            binding.initialize_native_asmprinter()
            processor, features = binding.get_host_cpu_name(), ""
            with contextlib.suppress(RuntimeError):  # LLVM does not know them everywhere
                features = binding.get_host_cpu_features().flatten()
            content, symbol = self._kept_or_made(f"{processor} {features}")
            target = binding.Target.from_default_triple()
            machine = target.create_target_machine(cpu=processor, features=features)
            self._engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
            self._engine.add_object_file(binding.object_file.ObjectFileRef.from_data(content))
            self._engine.finalize_object()
            self._function = self._type(self._engine.get_function_address(symbol))
            return self._function

    def _kept_or_made(self, processor: str) -> tuple[bytes, str]:
        versions = (importlib.metadata.version(name) for name in ("numba", "llvmlite"))
        told = (self._text.read_text(), str(self._number), processor, *versions)
        name = f"{self._text.stem}-{self._number}-{hashlib.sha256(repr(told).encode()).hexdigest()[:24]}.o"
        found = _read(name)
        if found is None:
            made, symbol = self._make()
            found = symbol.encode() + _END + made
            _write(name, found)
        start, _, content = found.partition(_END)
        return content, start.decode()


_NOWHERE = ctypes.create_string_buffer(64)
"""What a function returns, and why it failed: ours do neither."""


def _folders() -> Iterator[Path]:
    """Where machine code may be kept, the likelier first."""
    import platformdirs

    yield Path(__file__).with_name("__pycache__")
    yield platformdirs.user_cache_path("forkwatch")


def _read(name: str) -> bytes | None:
    """What was kept under a name, if all of it is there."""
    for folder in _folders():
        with contextlib.suppress(OSError):
            data = (folder / name).read_bytes()
            if hashlib.sha256(data[_CHECK:]).digest() == data[:_CHECK]:
                return data[_CHECK:]
    return None


def _write(name: str, data: bytes) -> None:
    """Keep it in the first folder that takes it; a file is there as a whole or not at all."""
    for folder in _folders():
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, path = tempfile.mkstemp(dir=folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(hashlib.sha256(data).digest() + data)
                Path(path).replace(folder / name)
            except OSError:
                Path(path).unlink(missing_ok=True)
                raise
            return
