"""Which tensor of a fork is compared with which tensor of the original."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.formats.names import layer_of, module_of, with_layer
from detector.formats.roles import (
    CONV1D,
    expert,
    parts_of,
    role_key,
    slots,
    split_role,
    stack,
    unique_roles,
)
from detector.formats.views import base_name, view
from detector.interface import TensorInfo, WeightReader

if TYPE_CHECKING:
    import torch

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
EMBEDDINGS = (
    EMBEDDING,
    "transformer.wte.weight",
    "gpt_neox.embed_in.weight",
    "transformer.word_embeddings.weight",
    "transformer.embedding.word_embeddings.weight",
    "model.tok_embeddings.weight",
)
HEADS = (HEAD, "embed_out.weight", "transformer.output_layer.weight", "output.weight")
MAX_EXPERTS = 1024
BLOCK_ELEMENTS = 1 << 20
"""Elements read at a time: 4 MiB a side in float32."""

EMBEDDING_MODULES = frozenset({"embed_tokens", "embed_in", "wte"})
"""Their columns are residual-stream dimensions; of the other writers the rows are."""
RESIDUAL_WRITERS = EMBEDDING_MODULES | {
    *("o_proj", "out_proj", "dense", "wo", "c_proj"),
    *("down_proj", "w2", "dense_4h_to_h", "fc2"),
}
"""Modules whose output is added to the residual stream: embeddings, outputs of attention (softmax or linear)
and of feed-forward layers, in Llama, Mixtral, Falcon, GPT-NeoX, Phi and GPT-2."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two tensors of the same role."""

    name: str
    """The fork's canonical name."""
    original: TensorInfo
    fork: TensorInfo
    by: str = "name"
    """What says that they belong together: `name`, `role` (another spelling, or a part of a fused tensor) or
    `content` (sampled rows)."""

    @property
    def key(self) -> str:
        """Both names: what a comparison of these two is remembered under."""
        return f"{self.original.name} : {self.name} : {self.fork.name}"

    @property
    def layer(self) -> int | None:
        """Layer in the fork."""
        return layer_of(self.name)

    @property
    def module(self) -> str:
        """Projection or norm."""
        return module_of(self.name)

    @property
    def is_matrix(self) -> bool:
        """Two dimensions, each above one."""
        return len(self.fork.shape) == 2 and min(self.fork.shape) > 1

    @property
    def writes_residual(self) -> bool:
        """Its rows (for the embedding: its columns) are residual-stream dimensions."""
        return self.is_matrix and self.name.endswith("weight") and self.module in RESIDUAL_WRITERS


@dataclass(frozen=True, slots=True)
class Unpaired:
    """A tensor whose counterpart is not certain: it is neither compared nor counted as added."""

    info: TensorInfo
    reason: str


@dataclass(frozen=True, slots=True)
class Pairing:
    """Every tensor of two checkpoints, by role."""

    pairs: tuple[Pair, ...]
    """Same shape; sorted by name."""
    reshaped: tuple[Pair, ...]
    added: tuple[TensorInfo, ...]
    missing: tuple[TensorInfo, ...]
    unmeasured: tuple[Unpaired, ...] = ()
    """Of the fork; only `match_by_content` finds them."""


def pair_tensors(
    original: Mapping[str, TensorInfo],
    fork: Mapping[str, TensorInfo],
    layers: Mapping[int, int] | None = None,
) -> Pairing:
    """Pair tensors by canonical name, then by role; what one side fuses and the other splits, in views.

    A head that one side ties to the embedding is paired with that embedding. No content is looked at: a view
    is made only where the shapes leave one reading, the heights of the parts adding up to the fused one's.

    Args:
        original: tensors of the original.
        fork: tensors of the fork.
        layers: layer of the fork → layer of the original it is a copy of, where they differ; layers of the
            fork that are not in it have no counterpart.
    """
    sides = Sides(original, fork)
    pairs, reshaped, added, used = list[Pair](), list[Pair](), list[TensorInfo](), set[str]()
    for name, info in fork.items():
        counterpart = _counterpart(name, layers)
        found = () if counterpart is None else sides.resolve(name, info, counterpart)
        if not found:
            added.append(info)
        for pair in found:
            used.add(
                base_name(pair.original.name) if pair.original.name not in original else pair.original.name
            )
            (pairs if pair.fork.shape == pair.original.shape else reshaped).append(pair)
    if (head := sides.tied_head()) is not None:
        used.add(head.original.name)
        (pairs if head.fork.shape == head.original.shape else reshaped).append(head)
    missing = tuple(info for name, info in original.items() if name not in used)
    return Pairing(tuple(sorted(pairs, key=lambda pair: pair.name)), tuple(reshaped), tuple(added), missing)


class Sides:
    """Both checkpoints, by name and by role."""

    def __init__(self, original: Mapping[str, TensorInfo], fork: Mapping[str, TensorInfo]) -> None:
        self._original, self._fork = original, fork
        self._original_roles, self._fork_roles = unique_roles(original), unique_roles(fork)
        self._turned = _stored_turned(original, fork)

    def resolve(self, name: str, info: TensorInfo, counterpart: str) -> tuple[Pair, ...]:
        """The pairs that one tensor of the fork takes part in.

        Args:
            name: its name, which may be in another layer than its counterpart.
            info: the tensor.
            counterpart: the name that its counterpart would have if both sides named alike.
        """
        if counterpart not in self._original and counterpart in (*HEADS, *EMBEDDINGS):
            usual = (*HEADS, *EMBEDDINGS) if counterpart in HEADS else EMBEDDINGS
            counterpart = next((other for other in usual if other in self._original), counterpart)
        if counterpart in self._original:
            return (self._pair(name, self._original[counterpart], info),)
        key, own = role_key(counterpart), role_key(name)
        if self._fork_roles.get(own) == name and (same := self._of_role(key)) is not None:
            return (self._pair(name, same, info, "role"),)
        return (
            self._fork_is_fused(name, info, key)
            or self._original_is_fused(name, info, key, own)
            or self._fork_is_stack(name, info, key)
            or self._original_is_stack(name, info, key)
            or self._fork_is_absorbed(name, info, key)
        )

    def tied_head(self) -> Pair | None:
        """The original's head and the fork's embedding, if the fork has no head of its own."""
        ours = next((name for name in HEADS if name in self._original), None)
        theirs = next((name for name in EMBEDDINGS if name in self._fork), None)
        if ours is None or theirs is None or any(head in self._fork for head in HEADS):
            return None
        return Pair(ours, self._original[ours], self._fork[theirs])

    def _of_role(self, key: str) -> TensorInfo | None:
        name = self._original_roles.get(key)
        return None if name is None else self._original[name]

    def _pair(self, name: str, original: TensorInfo, info: TensorInfo, by: str = "name") -> Pair:
        turned = self._turned and module_of(name) in CONV1D and len(original.shape) == 2
        return Pair(name, view(original, "T") if turned else original, info, by)

    def _fork_is_fused(self, name: str, info: TensorInfo, key: str) -> tuple[Pair, ...]:
        for roles in parts_of(key):
            parts = [part for role in roles if (part := self._of_role(role)) is not None]
            if len(parts) < len(roles) or not _adds_up(parts, info):
                continue
            stem = name[: -len(".".join(split_role(name)[1:]))]
            leaf = split_role(name)[2]
            views = _cut(info, parts)
            return tuple(
                Pair(f"{stem}{split_role(role)[1]}.{leaf}", part, cut, "role")
                for role, part, cut in zip(roles, parts, views, strict=True)
            )
        return ()

    def _original_is_fused(self, name: str, info: TensorInfo, key: str, own: str) -> tuple[Pair, ...]:
        for slot, ours in zip(slots(key), slots(own), strict=True):
            fused = self._of_role(slot.fused)
            siblings = [self._fork[n] for role in ours.parts if (n := self._fork_roles.get(role)) is not None]
            if fused is not None and len(siblings) == len(ours.parts) and _adds_up(siblings, fused):
                return (Pair(name, _cut(fused, siblings)[slot.index], info, "role"),)
        return ()

    def _fork_is_stack(self, name: str, info: TensorInfo, key: str) -> tuple[Pair, ...]:
        """All experts in one tensor of the fork, each in its own of the original."""
        where = stack(key)
        if where is None or len(info.shape) != 3 or info.shape[0] > MAX_EXPERTS:
            return ()
        modules = ("gate_proj", "up_proj") if where[1] == "gate_up_proj" else (where[1],)
        stem = name.removesuffix(".weight").rpartition(".")[0]
        down = self._fork.get(f"{stem}.down_proj") or self._fork.get(f"{stem}.down_proj.weight")
        whole = _Stack(info, len(modules), down, interleaved=f"{stem}.gate_up_proj_bias" in self._fork)
        pairs = []
        for number in range(info.shape[0]):
            for index, module in enumerate(modules):
                part = self._of_role(f"{where[0]}.{number}.{module}.weight")
                cut = None if part is None else whole.cut(number, index, part.shape)
                if part is None or cut is None:
                    return ()
                pairs.append(Pair(f"{stem}.{number}.{module}.weight", part, cut, "role"))
        return tuple(pairs)

    def _original_is_stack(self, name: str, info: TensorInfo, key: str) -> tuple[Pair, ...]:
        """One expert in a tensor of its own in the fork, all in one of the original."""
        where = expert(key)
        if where is None:
            return ()
        stem, number, module = where
        down = self._of_role(f"{stem}.down_proj") or self._of_role(f"{stem}.down_proj.weight")
        interleaved = self._of_role(f"{stem}.gate_up_proj_bias") is not None
        for fused, modules in (("gate_up_proj", ("gate_proj", "up_proj")), (module, (module,))):
            whole = self._of_role(f"{stem}.{fused}") or self._of_role(f"{stem}.{fused}.weight")
            if whole is None or module not in modules:
                continue
            stacked = _Stack(whole, len(modules), down, interleaved)
            if (cut := stacked.cut(number, modules.index(module), info.shape)) is not None:
                return (Pair(name, cut, info, "role"),)
        return ()

    def _fork_is_absorbed(self, name: str, info: TensorInfo, key: str) -> tuple[Pair, ...]:
        """DeepSeek's latent attention in GGUF: `kv_b_proj` cut by head into keys, turned, and values."""
        stem, module, leaf = split_role(key)
        whole = self._of_role(f"{stem}.kv_b_proj.{leaf}")
        if whole is None or module not in {"k_b_proj", "v_b_proj"} or len(whole.shape) != 2:
            return ()
        keys, values = (
            self._fork.get(name.replace(f".{module}.", f".{m}.")) for m in ("k_b_proj", "v_b_proj")
        )
        if keys is None or values is None or len(keys.shape) != 3 or len(values.shape) != 3:
            return ()
        heads, rank, wide = keys.shape
        each = wide + values.shape[1]
        fits = values.shape == (heads, each - wide, rank) and whole.shape == (heads * each, rank)
        if not fits or heads > MAX_EXPERTS:
            return ()
        start, end = (0, wide) if module == "k_b_proj" else (wide, each)
        turned = ("T",) if module == "k_b_proj" else ()
        prefix = name.removesuffix(f"{module}.{leaf}")
        return tuple(
            Pair(
                f"{prefix}kv_b_proj.{head}.{module}.{leaf}",
                view(whole, f"rows:{head * each + start}:{head * each + end}"),
                view(info, f"index:{head}", *turned),
                "role",
            )
            for head in range(heads)
        )


@dataclass(frozen=True, slots=True)
class _Stack:
    """All experts of one projection, or of two side by side."""

    info: TensorInfo
    count: int
    """Projections in it: 2 for gate_up_proj."""
    down: TensorInfo | None
    """The stack of output projections beside it."""
    interleaved: bool
    """gpt-oss takes rows of the two in turns; its stacks are the ones with a bias."""

    def cut(self, number: int, index: int, shape: tuple[int, ...]) -> TensorInfo | None:
        """Projection `index` of expert `number`; None if the shapes leave none or more than one reading.

        Stacks are (experts, out, in) or, in Llama 4 and gpt-oss, (experts, in, out); a square one is read
        like the output projections beside it.
        """
        if len(self.info.shape) != 3 or len(shape) != 2 or number >= self.info.shape[0]:
            return None
        plain, turned = (self.count * shape[0], shape[1]), (shape[1], self.count * shape[0])
        straight = self.info.shape[1:] == plain
        if plain == turned:
            if self.down is None or len(self.down.shape) != 3 or self.down.shape[1] == self.down.shape[2]:
                return None
            straight = self.down.shape[1:] == (shape[1], shape[0])
        if self.info.shape[1:] not in {plain, turned}:
            return None
        operations = [f"index:{number}"] if straight else [f"index:{number}", "T"]
        if self.count > 1 and self.interleaved:
            operations.append(f"every:{self.count}:{index}")
        elif self.count > 1:
            operations.append(f"rows:{index * shape[0]}:{(index + 1) * shape[0]}")
        return view(self.info, *operations)


def _adds_up(parts: list[TensorInfo], fused: TensorInfo) -> bool:
    """The parts, one above the other, have the fused tensor's shape."""
    if not fused.shape or any(not part.shape or part.shape[0] == 0 for part in parts):
        return False
    tails = {part.shape[1:] for part in parts}
    return tails == {fused.shape[1:]} and sum(part.shape[0] for part in parts) == fused.shape[0]


def _cut(fused: TensorInfo, parts: list[TensorInfo]) -> list[TensorInfo]:
    """Views of the fused tensor, one for each part."""
    views, first = [], 0
    for part in parts:
        views.append(view(fused, f"rows:{first}:{first + part.shape[0]}"))
        first += part.shape[0]
    return views


def _stored_turned(original: Mapping[str, TensorInfo], fork: Mapping[str, TensorInfo]) -> bool:
    """One side stores GPT-2's matrices input first and the other output first, as its c_fc shows."""
    orientations = [
        {info.shape[0] < info.shape[1] for name, info in side.items() if _is_wide(name, info)}
        for side in (original, fork)
    ]
    return all(len(found) == 1 for found in orientations) and orientations[0] != orientations[1]


def _is_wide(name: str, info: TensorInfo) -> bool:
    return name.endswith(".c_fc.weight") and len(info.shape) == 2 and info.shape[0] != info.shape[1]


def _counterpart(name: str, layers: Mapping[int, int] | None) -> str | None:
    layer = layer_of(name)
    if layers is None or layer is None:
        return name
    return with_layer(name, layers[layer]) if layer in layers else None


def blocks(
    pair: Pair, original: WeightReader, fork: WeightReader
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Both sides of a pair of the same shape, some rows at a time, in their stored dtypes."""
    shape = pair.fork.shape
    if not shape:
        yield original.values(pair.original.name), fork.values(pair.fork.name)
        return
    width = max(1, _product(shape[1:]))
    step = max(1, BLOCK_ELEMENTS // width)
    for first in range(0, shape[0], step):
        yield original.band(pair.original.name, first, step), fork.band(pair.fork.name, first, step)


def _product(numbers: tuple[int, ...]) -> int:
    product = 1
    for number in numbers:
        product *= number
    return product
