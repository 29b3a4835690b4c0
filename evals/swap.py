"""Exchanging the values of a loaded original for a variant's, in place, and taking them back, verified.

(1) The variant's parts are opened and matched by their headers. (2) Tensor by tensor, its values are computed
and compared with the original's. (3) Only one that differs is touched, and what it held is kept. (4) Taking
back copies the kept values, and checks each bit for bit, and all tensors of the model by checksums made when
it was loaded. Importing this module imports torch; only the evaluation child does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from evals.checksum import checksums, same_bits
from evals.interface import EvalsError
from evals.parts import ForkMisfitError, OpenPart, Slots, slots_of
from evals.variants import Part, Storage, Variant

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GROUP = 64
"""Neighbouring inputs of a linear layer that share a scale in a 4-bit copy."""
STEPS = 7
"""Steps of a 4-bit grid on either side of 0."""
INT8_STEPS = 127
"""The same of an 8-bit grid."""
AHEAD = 3
"""Tensors that are read while one is compared: a disk and a GPU work at the same time."""
DEVICE_RESERVE = 0.1
"""Share of a GPU's memory left free when the original's values are kept on it; beyond, they go to the CPU."""


class NotRestoredError(EvalsError):
    """The original's values did not come back. Nothing measured afterwards could be believed."""

    tip = "This is a defect of forkwatch or of the memory of this machine; please report it."


class Swap:
    """The exchange of one loaded original's values; it holds one variant at a time."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._slots = slots_of(model)
        self._checksums = checksums(self._slots.tensors)
        self._kept: dict[str, torch.Tensor] = {}

    @contextmanager
    def holding(self, variant: Variant) -> Iterator[tuple[str, ...]]:
        """The model computes as the variant inside, as the original before and after, whatever happens.

        Yields:
            What had to be ignored, in words.

        Raises:
            ForkMisfitError: it does not fit; the model is as it was.
            NotRestoredError: the original's values did not come back.
        """
        try:
            yield self.put(variant)
        finally:
            self.take_back()

    def put(self, variant: Variant) -> tuple[str, ...]:
        """Put the values in; `take_back` also after an error."""
        return _put(self._model, self._slots, variant, self._kept)

    def take_back(self) -> None:
        """The original again.

        Raises:
            NotRestoredError: a tensor holds other values than when it was loaded.
        """
        with torch.no_grad():
            for name, kept in self._kept.items():
                ours = self._slots.tensors[name]
                ours.copy_(kept)
                if not same_bits(ours, kept.to(ours.device)):
                    raise NotRestoredError(f"{name} did not take its old values back")
        self._kept.clear()
        if self._slots.head is not None:
            self._model.get_output_embeddings().weight = self._model.get_input_embeddings().weight
        if self._checksums != (now := checksums(slots_of(self._model).tensors)):
            wrong = [name for name in now if now[name] != self._checksums.get(name)]
            raise NotRestoredError(f"{len(wrong)} tensors differ from the original, first {wrong[:1]}")


def apply_fork(model: PreTrainedModel, weights: Sequence[Path]) -> tuple[str, ...]:
    """Replace the model's values by the fork's, in place, one tensor at a time, for good.

    Args:
        model: The original; half replaced when this raises.
        weights: Safetensors shards, one GGUF file, or one PEFT adapter folder.

    Returns:
        What had to be ignored, in words.

    Raises:
        ForkMisfitError: a tensor is missing, foreign, of another shape, not finite, or unreadable.
    """
    return _put(model, slots_of(model), Variant("fork", (Part(tuple(weights)),)), None)


def _put(
    model: PreTrainedModel, slots: Slots, variant: Variant, kept: dict[str, torch.Tensor] | None
) -> tuple[str, ...]:
    """Put a variant's values in, and the replaced ones into `kept`, unless they are not wanted back."""
    parts = [(OpenPart(part.weights, slots), part.scale) for part in variant.parts]
    names = list(slots.tensors)
    with torch.no_grad(), ThreadPoolExecutor(AHEAD) as pool:
        head = _own_head(slots, parts)
        for number, (name, ours) in enumerate(slots.tensors.items()):
            for soon in names[number + AHEAD : number + AHEAD + 1] if number else names[: AHEAD + 1]:
                for part, scale in parts:
                    if scale != 0:
                        part.read_ahead(pool, soon)
            values = _sum(parts, name, ours)
            if name in slots.linear:
                values = _ROUNDING[variant.storage](values)
            if same_bits(values, ours):
                continue
            if kept is not None:
                kept[name] = _kept_copy(ours)
            ours.copy_(values)
        if head is not None and not same_bits(head, slots.tensors[slots.embedding]):
            model.get_output_embeddings().weight = torch.nn.Parameter(head, requires_grad=False)
    return tuple(dict.fromkeys(note for part, _ in parts for note in part.notes))


def _own_head(slots: Slots, parts: Sequence[tuple[OpenPart, float]]) -> torch.Tensor | None:
    """The head of a variant whose original shares it with the embedding; computed before that changes."""
    if slots.head is None or not any(part.has_head for part, _ in parts):
        return None
    return _sum(parts, slots.head, slots.tensors[slots.embedding], otherwise=slots.embedding).clone()


def _sum(
    parts: Sequence[tuple[OpenPart, float]], name: str, ours: torch.Tensor, otherwise: str | None = None
) -> torch.Tensor:
    """The original plus the scaled deltas, in float32 and rounded once; one whole part is its own values."""
    named = [(part, scale, _said(part, name, otherwise)) for part, scale in parts]
    changes = [(part, scale, where) for part, scale, where in named if where is not None and scale != 0]
    if not changes:
        return ours
    if len(changes) == 1 and changes[0][1] == 1.0:
        part, _, where = changes[0]
        return part.values(where, ours)
    total = ours.float()
    for part, scale, where in changes:
        total = total + scale * part.delta(where, ours)
    values = total.to(ours.dtype)
    if not torch.isfinite(values).all():
        raise ForkMisfitError(f"the sum of the changes to {name[:100]} is not finite")
    return values


def _said(part: OpenPart, name: str, otherwise: str | None) -> str | None:
    """Under which name a part says something of a tensor."""
    if part.touches(name):
        return name
    return otherwise if otherwise is not None and part.touches(otherwise) else None


def round_to_int4(values: torch.Tensor) -> torch.Tensor:
    """The nearest values on a symmetric 4-bit grid by absolute maximum, in groups along the last axis."""
    rows = values.float().flatten(0, -2)
    groups = torch.nn.functional.pad(rows, (0, -rows.shape[1] % GROUP)).reshape(len(rows), -1, GROUP)
    step = groups.abs().amax(dim=-1, keepdim=True) / STEPS
    grid: torch.Tensor = (groups / step.clamp_min(torch.finfo(torch.float32).tiny)).round() * step
    return grid.flatten(1)[:, : rows.shape[1]].reshape(values.shape).to(values.dtype)


def round_to_int8(values: torch.Tensor) -> torch.Tensor:
    """The nearest values on a symmetric 8-bit grid by absolute maximum, a step for each row."""
    rows = values.float().flatten(0, -2)
    step = rows.abs().amax(dim=-1, keepdim=True) / INT8_STEPS
    grid: torch.Tensor = (rows / step.clamp_min(torch.finfo(torch.float32).tiny)).round() * step
    return grid.reshape(values.shape).to(values.dtype)


_ROUNDING = {
    Storage.ORIGINAL: lambda values: values,
    Storage.INT4: round_to_int4,
    Storage.INT8: round_to_int8,
}


def _kept_copy(ours: torch.Tensor) -> torch.Tensor:
    """A copy where the tensor is, or on the CPU where a GPU has no room."""
    if ours.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(ours.device)
        if free - ours.nbytes < DEVICE_RESERVE * total:
            return ours.detach().cpu()
    return ours.detach().clone()
