"""What a fork's files say of each tensor of the original: names and shapes matched first, values on demand.

Of a fork only tensors are read, through the detector's readers, which parse and never execute. Importing this
module imports torch; only the evaluation child does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from evals.interface import EvalsError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from detector.formats import PeftReader
    from detector.interface import TensorInfo, WeightReader


class ForkMisfitError(EvalsError):
    """The fork's tensors do not fit the original's architecture, so its behaviour cannot be measured."""

    tip = "Only forks with the original's architecture can be evaluated."


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A `ByteSource` over a file on this machine."""

    path: Path

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises:
            ForkMisfitError: the file ends before.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts: list[bytes] = []
            while length > 0 and (part := os.pread(descriptor, min(length, 1 << 30), offset)):
                parts.append(part)
                offset, length = offset + len(part), length - len(part)
        finally:
            os.close(descriptor)
        if length:
            raise ForkMisfitError(f"{self.path.name} is truncated")
        return parts[0] if len(parts) == 1 else b"".join(parts)


@dataclass(frozen=True, slots=True)
class Slots:
    """Where the values of a loaded model lie."""

    tensors: Mapping[str, torch.Tensor]
    """Each stored tensor once, under its first name."""
    shared: frozenset[str]
    """Further names of the same tensors."""
    vocabulary: frozenset[str]
    """Names of the input embedding and the output head, whose rows are the tokens."""
    linear: frozenset[str]
    """Weights of linear layers, the output head left out."""
    embedding: str
    head: str | None
    """Name of the output head where it is the embedding itself."""


def slots_of(model: PreTrainedModel) -> Slots:
    """The places of a model as it was loaded."""
    kept = model.state_dict().keys()
    stored = list(model.named_parameters(remove_duplicate=False))
    stored += [(name, buffer) for name, buffer in model.named_buffers() if name in kept]
    first_name = {id(tensor): name for name, tensor in reversed(stored)}
    tensors = {name: tensor for name, tensor in stored if first_name[id(tensor)] == name}
    shared = frozenset(name for name, _ in stored) - tensors.keys()
    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    owned = {id(module.weight) for module in (embedding, output) if module is not None}
    vocabulary = frozenset(name for name, tensor in stored if id(tensor) in owned)
    linear = frozenset(
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not output
    )
    return Slots(
        tensors=tensors,
        shared=shared,
        vocabulary=vocabulary,
        linear=linear & tensors.keys(),
        embedding=first_name[id(embedding.weight)],
        head=next(iter(sorted(shared & vocabulary)), None),
    )


class OpenPart:
    """A fork's files, opened and matched with the original's places. Safetensors, one GGUF, or PEFT.

    An adapter beside full weights applies on top of them, as transformers does.
    """

    def __init__(self, weights: Sequence[Path], slots: Slots) -> None:
        """Match names and shapes from the headers alone, before any value is read.

        Raises:
            ForkMisfitError: a tensor is missing, foreign or of another shape, or a file is unreadable.
        """
        from detector.formats import open_adapter, open_weights

        self._slots = slots
        self._readers: dict[str, WeightReader] = {}
        self._extra_rows = 0
        self._ahead: dict[str, Future[torch.Tensor]] = {}
        with _as_misfit():
            sources = _sources(weights)
            reader, self._adapter = open_weights(sources), open_adapter(sources)
            if reader.format != "peft":
                self._match(reader, reader.tensors(), partial=False)
            if self._adapter is not None:
                self._match_adapter(self._adapter)

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be ignored, in words."""
        extra = self._extra_rows
        return (f"{extra} vocabulary rows beyond the original's were ignored",) if extra else ()

    @property
    def has_head(self) -> bool:
        """Whether it brings an output head of its own, where the original's is the embedding."""
        return self._slots.head is not None and self.touches(self._slots.head)

    def touches(self, name: str) -> bool:
        """Whether it says anything of that tensor."""
        return name in self._readers or (self._adapter is not None and name in self._adapter.targets)

    def read_ahead(self, pool: Executor, name: str) -> None:
        """Begin to read a tensor that will be asked for."""
        if name in self._readers:
            self._ahead[name] = pool.submit(self._readers[name].values, name)

    def values(self, name: str, ours: torch.Tensor) -> torch.Tensor:
        """The fork's values of a tensor that it touches, where `ours` are and in their dtype; rounded once.

        Raises:
            ForkMisfitError: a value is not finite or not a number, or cannot be read.
        """
        whole = self._whole(name, ours)
        if self._adapter is None or name not in self._adapter.targets:
            return _finite(name, whole, ours)
        return _finite(name, whole.float() + self._change(name, whole, ours), ours)

    def delta(self, name: str, ours: torch.Tensor) -> torch.Tensor:
        """The fork's values minus the original's, in float32.

        Raises:
            ForkMisfitError: as `values`.
        """
        whole = self._whole(name, ours)
        delta = _finite(name, whole, ours).float() - ours.float()
        if self._adapter is not None and name in self._adapter.targets:
            delta += self._change(name, whole, ours)
        return delta

    def _whole(self, name: str, ours: torch.Tensor) -> torch.Tensor:
        """The values as the files ship them, without the adapter's factors."""
        if name not in self._readers:
            return ours
        begun = self._ahead.pop(name, None)
        with _as_misfit():
            values = self._readers[name].values(name) if begun is None else begun.result()
        if not values.is_floating_point():
            raise ForkMisfitError(
                f"{name[:100]} holds {values.dtype}, not numbers that the original's layers use"
            )
        return (values[: ours.shape[0]] if values.dim() else values).to(ours.device)

    def _change(self, name: str, whole: torch.Tensor, ours: torch.Tensor) -> torch.Tensor:
        """scale·B·A, or what DoRA makes of it, in float32."""
        assert self._adapter is not None
        with _as_misfit():
            return self._adapter.delta(name, whole.float().cpu()).to(ours.device)

    def _match(self, reader: WeightReader, theirs: Mapping[str, TensorInfo], *, partial: bool) -> None:
        slots = self._slots
        ours = slots.tensors
        if not partial and (missing := ours.keys() - theirs.keys()):
            raise ForkMisfitError(f"{len(missing)} tensors are missing, first {min(missing)}")
        if foreign := theirs.keys() - ours.keys() - slots.shared:
            raise ForkMisfitError(f"{len(foreign)} tensors are foreign, first {min(foreign)[:100]}")
        targets = {name: tensor for name, tensor in ours.items() if name in theirs}
        if slots.head is not None and slots.head in theirs:
            targets[slots.head] = ours[slots.embedding]
        for name, tensor in targets.items():
            rows = _extra_rows(theirs[name], tensor, allow_more=name in slots.vocabulary)
            self._extra_rows = max(self._extra_rows, rows)
            self._readers[name] = reader

    def _match_adapter(self, adapter: PeftReader) -> None:
        if foreign := adapter.foreign:
            raise ForkMisfitError(f"the adapter has tensors that are not decoded, such as {foreign[0][:100]}")
        saved = {name: adapter.tensors()[name] for name in adapter.saved}
        self._match(adapter, saved, partial=True)
        for name in adapter.targets:
            is_head = name == self._slots.head
            target = self._slots.tensors.get(self._slots.embedding if is_head else name)
            if target is None:
                raise ForkMisfitError(f"the adapter changes {name[:100]}, which the original does not have")
            if adapter.shape(name) != tuple(target.shape):
                raise ForkMisfitError(f"the adapter changes {name[:100]} in another shape")


def _sources(weights: Sequence[Path]) -> Mapping[str, LocalFile]:
    files = (file for path in weights for file in (sorted(path.iterdir()) if path.is_dir() else [path]))
    return {file.name: LocalFile(file) for file in files if file.is_file()}


@contextmanager
def _as_misfit() -> Iterator[None]:
    from detector.errors import DetectorError

    try:
        yield
    except DetectorError as error:
        raise ForkMisfitError(f"weights cannot be read: {error}") from error


def _extra_rows(theirs: TensorInfo, ours: torch.Tensor, *, allow_more: bool) -> int:
    """Rows of a vocabulary matrix that the original does not have; its tokenizer never produces them."""
    shape = tuple(ours.shape)
    if theirs.shape == shape:
        return 0
    if allow_more and theirs.shape[1:] == shape[1:] and theirs.shape[0] > shape[0]:
        return int(theirs.shape[0] - shape[0])
    raise ForkMisfitError(f"{theirs.name[:100]} has shape {list(theirs.shape)}, the original {list(shape)}")


def _finite(name: str, values: torch.Tensor, ours: torch.Tensor) -> torch.Tensor:
    """The values in the original's dtype."""
    cast = values.to(ours.dtype)
    if not torch.isfinite(cast).all():
        raise ForkMisfitError(f"{name[:100]} holds values that are not finite")
    return cast
