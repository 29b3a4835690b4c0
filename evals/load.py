"""Loading: the original as released, then a fork's numbers swapped into it.

Config, tokenizer and chat template are the original's; of a fork only tensors are read, through the
detector's readers, which parse and never execute. Importing this module imports torch and transformers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from evals.interface import EvalsError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

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


def load_original(folder: Path, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The verified release in its stored dtype, in evaluation mode, with decoding defaults removed."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype="auto",
        attn_implementation="sdpa",
    )
    # A release's own sampling defaults would leak into greedy decoding; only its stop tokens are kept.
    model.generation_config = GenerationConfig(eos_token_id=model.generation_config.eos_token_id)
    return model.to(device).eval(), tokenizer


def apply_fork(model: PreTrainedModel, weights: Sequence[Path]) -> tuple[str, ...]:
    """Replace the model's values by the fork's, in place, one tensor at a time.

    Args:
        model: The original; half replaced when this raises.
        weights: Safetensors shards, one GGUF file, or one PEFT adapter folder.

    Returns:
        What had to be ignored, in words.

    Raises:
        ForkMisfitError: a tensor is missing, foreign, of another shape, not finite, or unreadable.
    """
    from detector.errors import DetectorError
    from detector.formats import open_adapter, open_weights

    try:
        sources = _sources(weights)
        reader, adapter = open_weights(sources), open_adapter(sources)
        notes = () if reader.format == "peft" else _replace(model, reader, reader.tensors(), partial=False)
        if adapter is None:
            return notes
        if foreign := adapter.foreign:
            raise ForkMisfitError(f"the adapter has tensors that are not decoded, such as {foreign[0][:100]}")
        # transformers applies an adapter on top of full weights that lie beside it.
        saved = {name: adapter.tensors()[name] for name in adapter.saved}
        notes += _replace(model, adapter, saved, partial=True)
        _add_deltas(model, adapter)
    except DetectorError as error:
        raise ForkMisfitError(f"weights cannot be read: {error}") from error
    return notes


def _sources(weights: Sequence[Path]) -> Mapping[str, LocalFile]:
    files = (file for path in weights for file in (sorted(path.iterdir()) if path.is_dir() else [path]))
    return {file.name: LocalFile(file) for file in files if file.is_file()}


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which fork tensor goes where."""

    targets: Mapping[str, torch.Tensor]
    head: str | None
    """A separate output head of a fork whose original shares it with the embedding."""
    notes: tuple[str, ...]


def _replace(
    model: PreTrainedModel, reader: WeightReader, theirs: Mapping[str, TensorInfo], *, partial: bool
) -> tuple[str, ...]:
    """Copy tensors into the model: all of a checkpoint, or those that an adapter ships whole."""
    plan = _plan(model, theirs, partial=partial)
    with torch.no_grad():
        for name, target in plan.targets.items():
            values = _finite(name, reader.values(name), target.dtype)
            target.copy_(values[: target.shape[0]] if values.dim() else values)
        if plan.head is not None:
            _separate_head(model, _finite(plan.head, reader.values(plan.head), model.dtype))
    return plan.notes


def _plan(model: PreTrainedModel, theirs: Mapping[str, TensorInfo], *, partial: bool) -> _Plan:
    """Match names and shapes from the headers alone, before any value is read."""
    stored = list(_persistent(model))
    first_name = {id(tensor): name for name, tensor in reversed(stored)}
    ours = {name: tensor for name, tensor in stored if first_name[id(tensor)] == name}
    shared = {name for name, _ in stored} - ours.keys()
    if not partial and (missing := ours.keys() - theirs.keys()):
        raise ForkMisfitError(f"{len(missing)} tensors are missing, first {min(missing)}")
    if foreign := theirs.keys() - ours.keys() - shared:
        raise ForkMisfitError(f"{len(foreign)} tensors are foreign, first {min(foreign)[:100]}")
    vocabulary = _vocabulary_tensors(model)
    targets = {name: tensor for name, tensor in ours.items() if name in theirs}
    extra = [_extra_rows(theirs[name], ours[name], allow_more=name in vocabulary) for name in targets]
    notes = (f"{max(extra)} vocabulary rows beyond the original's were ignored",) if any(extra) else ()
    head = next(iter(sorted(shared & vocabulary & theirs.keys())), None)
    return _Plan(targets, head, notes)


def _persistent(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Every name of every stored tensor; a shared tensor comes once for each of its names."""
    kept = model.state_dict().keys()
    yield from model.named_parameters(remove_duplicate=False)
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in kept)


def _vocabulary_tensors(model: PreTrainedModel) -> frozenset[str]:
    """Names of the input embedding and the output head, whose rows are the tokens."""
    modules = (model.get_input_embeddings(), model.get_output_embeddings())
    owned = {id(module.weight) for module in modules if module is not None}
    return frozenset(name for name, tensor in _persistent(model) if id(tensor) in owned)


def _extra_rows(theirs: TensorInfo, ours: torch.Tensor, *, allow_more: bool) -> int:
    """Rows of a vocabulary matrix that the original does not have; its tokenizer never produces them."""
    shape = tuple(ours.shape)
    if theirs.shape == shape:
        return 0
    if allow_more and theirs.shape[1:] == shape[1:] and theirs.shape[0] > shape[0]:
        return int(theirs.shape[0] - shape[0])
    raise ForkMisfitError(f"{theirs.name[:100]} has shape {list(theirs.shape)}, the original {list(shape)}")


def _finite(name: str, values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The values in the model's dtype."""
    if not values.is_floating_point():
        raise ForkMisfitError(
            f"{name[:100]} holds {values.dtype}, not numbers that the original's layers use"
        )
    cast = values.to(dtype)
    if not torch.isfinite(cast).all():
        raise ForkMisfitError(f"{name[:100]} holds values that are not finite")
    return cast


def _separate_head(model: PreTrainedModel, values: torch.Tensor) -> None:
    """Give the fork its own output head, unless it equals the embedding anyway."""
    embedding = model.get_input_embeddings().weight
    head = values[: embedding.shape[0]].to(embedding.device)
    if head.shape != embedding.shape:
        raise ForkMisfitError(f"the output head has shape {list(values.shape)}")
    if not torch.equal(head, embedding):
        model.get_output_embeddings().weight = torch.nn.Parameter(head, requires_grad=False)


def _add_deltas(model: PreTrainedModel, adapter: PeftReader) -> None:
    """Merge LoRA by algebra: W + scale·B·A, summed in float32 and rounded once, as merging does."""
    stored = dict(_persistent(model))
    for name in adapter.targets:
        target = stored.get(name)
        if target is None:
            raise ForkMisfitError(f"the adapter changes {name[:100]}, which the original does not have")
        if adapter.shape(name) != tuple(target.shape):
            raise ForkMisfitError(f"the adapter changes {name[:100]} in another shape")
        with torch.no_grad():
            merged = target.float() + adapter.delta(name, target.float().cpu()).to(target.device)
            target.copy_(_finite(name, merged, target.dtype))
