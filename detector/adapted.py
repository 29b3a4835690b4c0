"""Which tensors of an original an adapter acts on: by name, by role, and in parts where one side fuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from detector.formats.names import module_of
from detector.formats.peft import PeftReader
from detector.formats.roles import CONV1D, role_key, slots, split_role, unique_roles
from detector.formats.views import base_name, view
from detector.interface import TensorInfo
from detector.pairing import EMBEDDINGS, HEADS, Pair, pair_tensors


@dataclass(frozen=True, slots=True)
class AdapterPairing:
    """Every target and every tensor saved whole of an adapter.

    A pair's `original.name` is for the original's reader, its `fork.name` for the adapter: `factors` and
    `delta` of a target, `values` of a saved tensor.
    """

    adapted: tuple[Pair, ...]
    """Targets with the part of the original that they are added to; sorted by name."""
    saved: tuple[Pair, ...]
    """Tensors shipped whole with the original's they replace, of the same shape; sorted by name."""
    resized: tuple[Pair, ...]
    """The same, of another shape: an embedding with more tokens."""
    unfitting: tuple[str, ...]
    """Targets without a counterpart of their shape, sorted."""
    added: tuple[str, ...]
    """Tensors shipped whole that the original has none for, sorted."""


def pair_adapter(original: Mapping[str, TensorInfo], adapter: PeftReader) -> AdapterPairing:
    """Pair an adapter with an original.

    Stacks of experts are paired matrix by matrix, whether the original stacks them or not, and whichever way
    round it stores them.
    """
    turned = _is_turned(original, adapter)
    targets, adapted = dict[str, TensorInfo](), list[Pair]()
    for target in adapter.targets:
        info = TensorInfo(target, "F32", adapter.shape(target), 0)
        if len(info.shape) == 3 and target in original:
            adapted += _experts(original, info)
        elif turned and target in original and module_of(target) in CONV1D and len(info.shape) == 2:
            adapted.append(Pair(target, view(original[target], "T"), info))
        else:
            targets[target] = info
    beside = _beside(original, targets)
    found = pair_tensors(original, targets | beside).pairs
    adapted += (pair for pair in _own(found) if base_name(pair.fork.name) not in beside)
    used = {base_name(pair.fork.name) for pair in adapted}
    infos = adapter.tensors()
    whole = pair_tensors(original, {name: infos[name] for name in adapter.saved})
    return AdapterPairing(
        adapted=tuple(sorted(adapted, key=lambda pair: pair.name)),
        saved=_own(whole.pairs),
        resized=_own(whole.reshaped),
        unfitting=tuple(target for target in adapter.targets if target not in used),
        added=tuple(sorted(info.name for info in whole.added)),
    )


def _is_turned(original: Mapping[str, TensorInfo], adapter: PeftReader) -> bool:
    """The original stores GPT-2's matrices input first, and the configuration does not say so.

    PEFT writes `fan_in_fan_out` as the last module that it wrapped needs it, and corrects it when loading.
    """
    shapes = {target: adapter.shape(target) for target in adapter.targets if module_of(target) in CONV1D}
    return any(
        len(set(shape)) == 2 and target in original and original[target].shape == shape[::-1]
        for target, shape in shapes.items()
    )


def _beside(original: Mapping[str, TensorInfo], targets: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Stand-ins for the parts that lie beside targets in a fused tensor and have no factors themselves.

    Their heights follow from the fused one's, as keys have as many rows as values, and gates as the others.
    """
    fused, found = unique_roles(original), dict[str, TensorInfo]()
    roles = {role_key(name): info for name, info in targets.items()}
    for name, info in targets.items():
        for slot in slots(role_key(name)):
            if slot.fused not in fused or len(info.shape) not in {1, 2}:
                continue
            heights = _heights([roles.get(role) for role in slot.parts], original[fused[slot.fused]].shape[0])
            stem = name[: -len(".".join(split_role(name)[1:]))]
            for role, height in zip(slot.parts, heights, strict=False):
                _, module, leaf = split_role(role)
                part = f"{stem}{module}.{leaf}"
                if part not in targets and height > 0:
                    found[part] = TensorInfo(part, "F32", (height, *info.shape[1:]), 0)
    return found


def _heights(parts: list[TensorInfo | None], height: int) -> list[int]:
    """Rows of each part of a fused tensor of this height, from those that are known."""
    known = [None if part is None else part.shape[0] for part in parts]
    narrow = next((rows for rows in known[1:] if rows is not None), None)
    if narrow is None:
        narrow = (height - (known[0] or 0)) // (len(known) - 1)
    return [height - narrow * (len(known) - 1), *(narrow for _ in known[1:])]


def _own(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    """Without the original's head beside an embedding: a checkpoint would tie them, an adapter does not."""
    return tuple(pair for pair in pairs if pair.name not in HEADS or pair.fork.name not in EMBEDDINGS)


def _experts(original: Mapping[str, TensorInfo], target: TensorInfo) -> list[Pair]:
    """Matrix by matrix of a stack; none where the two do not have one reading."""
    whole = original[target.name]
    count, rows, columns = target.shape
    turned = whole.shape == (count, columns, rows)
    if whole.shape != target.shape and not turned:
        return []
    if rows == columns:  # the stack beside it is stored the same way round
        stem, _, module = target.name.rpartition(".")
        down = original.get(f"{stem}.down_proj")
        if module == "down_proj" or down is None or len(down.shape) != 3 or down.shape[1] == down.shape[2]:
            return []
        turned = down.shape[2] == rows
    steps = ("T",) if turned else ()
    return [
        Pair(
            f"{target.name}@index:{index}",
            view(whole, f"index:{index}", *steps),
            view(target, f"index:{index}"),
            "role",
        )
        for index in range(count)
    ]
