"""Fingerprints on disk: one safetensors file a model, described by JSON in its header, written atomically.

Nothing is unpickled, and a file is checked before it is believed: it may come from another machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crawler.interface import CorruptDownloadError
from crawler.local import LocalFile
from detector.errors import FingerprintError, MalformedWeightsError
from detector.floats import Floats, widened
from detector.formats.safetensors_header import SafetensorsHeader, StoredTensor, read_header
from detector.index.fingerprint import (
    MAX_LAYERS,
    MAX_WIDTH,
    Fingerprint,
    Identity,
    ModelKind,
    Shape,
)
from detector.index.signature import GAIN_SIZE, SIZE, Codes
from detector.lineage import Bands

if TYPE_CHECKING:
    import torch

SCHEMA = "forkwatch.fingerprint/1"
SUFFIX = ".safetensors"
MAX_BYTES = 256 << 20
"""Of one file: 8 rows of 126 layers of 16,384 are 33 MB."""
MAX_NAME = 256
"""Characters of a model's name."""
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_REPO = re.compile(r"[A-Za-z0-9_.-]{1,96}/[A-Za-z0-9_.-]{1,96}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


class Signatures(NamedTuple):
    """The part of a fingerprint that is searched."""

    width: int
    layers: Codes
    """(layers, SIZE)."""
    gains: Codes
    """(GAIN_SIZE,), zeros when the model has none."""
    repo: str
    """Empty when it is from none."""


def file_name(name: str) -> str:
    """Where the fingerprint of the model of that name lies: names are hostile, digests are not."""
    return hashlib.sha256(name.encode()).hexdigest()[:32] + SUFFIX


def save_fingerprint(folder: Path, fingerprint: Fingerprint) -> Path:
    """Write it under its model's name; a reader sees the file that was there or this one, never a part."""
    import torch
    from safetensors.torch import save

    numbers = fingerprint.shape.layers
    tensors = {f"band.{layer}": _narrow(fingerprint.bands.layers[layer]) for layer in numbers}
    if fingerprint.bands.embedding is not None:
        tensors["embedding"] = _narrow(fingerprint.bands.embedding)
    for layer, gain in fingerprint.bands.gains.items():
        tensors[f"gain.{layer}"] = _narrow(gain)
    if (codes := fingerprint.gain_codes) is not None:
        tensors["gain-signature"] = torch.from_numpy(codes)
    tensors["signatures"] = torch.from_numpy(fingerprint.signatures)
    content = save(tensors, {"forkwatch": json.dumps(_describe(fingerprint), sort_keys=True)})
    target = folder / file_name(fingerprint.identity.name)
    write_whole(target, content)
    return target


def write_whole(target: Path, content: bytes) -> None:
    """Write a file that is there completely or not at all, readable by its owner."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def load_fingerprint(path: Path) -> Fingerprint:
    """Read and check a whole fingerprint.

    Raises:
        FingerprintError: it is not one, or a damaged one.
    """
    file = _File(path)
    identity, shape = file.describe()
    bands = {layer: file.floats(f"band.{layer}") for layer in shape.layers}
    if any(band.ndim != 2 or band.shape[1] != shape.width for band in bands.values()):
        raise FingerprintError(f"{path.name}: a band has another width than the model")
    embedding = file.floats("embedding") if "embedding" in file.places else None
    found = Bands(bands, embedding, file.gains(shape), file.neurons)
    return Fingerprint(identity, shape, found, file.signatures(shape))


def load_description(path: Path) -> tuple[Identity, Shape]:
    """What model a fingerprint is of, from its header alone. Raises as `load_fingerprint`."""
    return _File(path).describe()


def load_signatures(path: Path) -> Signatures:
    """The searchable part alone: a few KB. Raises as `load_fingerprint`."""
    file = _File(path)
    identity, shape = file.describe()
    gains = np.zeros(GAIN_SIZE, np.int8)
    if "gain-signature" in file.places:
        gains = file.array("gain-signature", "I8", (GAIN_SIZE,)).view(np.int8)
    return Signatures(shape.width, file.signatures(shape), gains, identity.repo or "")


class _File:
    """A fingerprint file whose header has been checked."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._source, self._header = open_checked(path, MAX_BYTES)
        self.places = {tensor.name: tensor for tensor in self._header.tensors}
        self.neurons = ""

    def describe(self) -> tuple[Identity, Shape]:
        """Identity and shape, every field checked."""
        text = dict(self._header.metadata).get("forkwatch", "")
        try:
            found = json.loads(text)
            self.neurons = _neurons(found)
            return _identity(found, self._name), _shape(found)
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise FingerprintError(f"{self._name}: not a fingerprint of this version: {error}") from error

    def signatures(self, shape: Shape) -> Codes:
        """The layers' signatures."""
        return self.array("signatures", "I8", (len(shape.layers), SIZE)).view(np.int8)

    def gains(self, shape: Shape) -> dict[int, Floats]:
        """Gains of the layers that have one."""
        found = {
            layer: self.floats(f"gain.{layer}") for layer in shape.layers if f"gain.{layer}" in self.places
        }
        if any(gain.shape != (shape.width,) for gain in found.values()):
            raise FingerprintError(f"{self._name}: a gain has another width than the model")
        return found

    def array(self, name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Bytes of a tensor that must have this type and shape, with its leading dimensions."""
        place = self.places.get(name)
        if place is None or place.dtype != dtype or place.shape != shape:
            raise FingerprintError(f"{self._name}: no {name} of type {dtype} and shape {shape}")
        return self._bytes(place).reshape(*shape[:-1], -1)

    def floats(self, name: str) -> Floats:
        """A tensor in one of the types that `save_fingerprint` writes."""
        types = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32}
        place = self.places.get(name)
        if place is None or place.dtype not in types or 0 in place.shape:
            raise FingerprintError(f"{self._name}: no {name} with floating-point values")
        values = widened(self._bytes(place).view(types[place.dtype]).reshape(place.shape))
        if not np.isfinite(values).all():
            raise FingerprintError(f"{self._name}: {name} holds values that are not finite")
        return values

    def _bytes(self, place: StoredTensor) -> NDArray[np.uint8]:
        return np.frombuffer(bytearray(self._source.read(place.offset, place.nbytes)), np.uint8)


def open_checked(path: Path, limit: int) -> tuple[LocalFile, SafetensorsHeader]:
    """Open a safetensors file of ours.

    Raises:
        FingerprintError: it cannot be read, is larger than `limit` bytes, or its header is malformed.
    """
    try:
        source = LocalFile(path)
        if source.size > limit:
            raise FingerprintError(f"{path.name}: {source.size} bytes, more than {limit}")
        return source, read_header(source, path.name)
    except (OSError, MalformedWeightsError, CorruptDownloadError) as error:
        raise FingerprintError(f"{path.name}: {error}") from error


def _narrow(found: Floats) -> torch.Tensor:
    """In the narrowest type that holds the values exactly: a model's own, but for quantised ones."""
    import torch

    values = torch.from_numpy(found)
    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal(values.to(dtype).float(), values):
            return values.to(dtype)
    return values


def _describe(fingerprint: Fingerprint) -> dict[str, object]:
    identity, shape = fingerprint.identity, fingerprint.shape
    return {
        "schema": SCHEMA,
        "name": identity.name,
        "kind": identity.kind.value,
        "repo": identity.repo,
        "commit": identity.commit,
        "root_digest": identity.root_digest,
        "inventory": shape.inventory,
        "headers": shape.headers,
        "neurons": fingerprint.bands.kind,
        "width": shape.width,
        "layers": list(shape.layers),
        "parameters": shape.parameters,
    }


def _identity(found: Mapping[str, object], lies_at: str) -> Identity:
    if found["schema"] != SCHEMA:
        raise ValueError(f"not {SCHEMA}")
    name = found["name"]
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ValueError("name is empty, too long or not printable")
    if file_name(name) != lies_at:
        raise ValueError("it does not lie under its model's name")
    return Identity(
        name=name,
        kind=ModelKind(str(found["kind"])),
        repo=_matching(found, "repo", _REPO),
        commit=_matching(found, "commit", _COMMIT),
        root_digest=_matching(found, "root_digest", _DIGEST),
    )


def _shape(found: Mapping[str, object]) -> Shape:
    inventory, headers = _matching(found, "inventory", _HEX), _matching(found, "headers", _HEX)
    width, layers, parameters = found["width"], found["layers"], found["parameters"]
    if inventory is None or headers is None:
        raise ValueError("inventory or headers is missing")
    if type(width) is not int or not 0 < width <= MAX_WIDTH:
        raise ValueError("width is out of bounds")
    if type(parameters) is not int or not 0 < parameters < 1 << 60:
        raise ValueError("parameters is out of bounds")
    if not isinstance(layers, list) or not 0 < len(layers) <= MAX_LAYERS:
        raise ValueError("layers is not a list of layers")
    numbers = tuple(layer for layer in layers if type(layer) is int and 0 <= layer < 100_000)
    if len(numbers) < len(layers) or list(numbers) != sorted(set(numbers)):
        raise ValueError("layers are not ascending numbers")
    return Shape(inventory=inventory, headers=headers, width=width, layers=numbers, parameters=parameters)


def _neurons(found: Mapping[str, object]) -> str:
    """Which neurons the bands are, see `detector.roster`."""
    kind = found["neurons"]
    if not isinstance(kind, str) or not 0 < len(kind) <= MAX_NAME or not kind.isprintable():
        raise ValueError("neurons is not a kind")
    return kind


def _matching(found: Mapping[str, object], key: str, pattern: re.Pattern[str]) -> str | None:
    value = found[key]
    if value is None:
        return None
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{key} is malformed")
    return value
