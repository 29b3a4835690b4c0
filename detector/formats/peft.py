"""A PEFT adapter shipped alone: LoRA factors and the weight change they stand for.

Targets are named like the tensors of the base that they change, and may be asked for in parts: a view of a
target (`detector.formats.views`) has the factors that make this part of the change.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from crawler.interface import ByteSource
from detector.errors import MalformedWeightsError, UnreadableTensorError
from detector.formats.names import module_of
from detector.formats.peft_config import AdapterConfig, read_adapter_config
from detector.formats.roles import CONV1D
from detector.formats.safetensors import SafetensorsReader
from detector.formats.views import Operation, operations, shape_after, taken
from detector.interface import TensorInfo

if TYPE_CHECKING:
    import torch

__all__ = ["AdapterConfig", "PeftReader", "is_adapter_tensor", "read_adapter_config"]

_FACTOR = re.compile(r"(.+)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)")
_BIAS = re.compile(r"(.+)\.lora_B(?:\.default)?\.bias")
_FOREIGN = re.compile(r"(?:^|\.)(?:lora_\w+|token_adapter)\.")
"""Tensors of an adapter that belong to options we do not decode; they are no modules saved whole."""


class PeftReader(SafetensorsReader):
    """A `WeightReader` whose tensors are the adapter's factors, plus the deltas they make."""

    format = "peft"

    def __init__(self, files: Mapping[str, ByteSource], config: AdapterConfig) -> None:
        """Group the factors by target.

        Raises:
            MalformedWeightsError: factors are missing, or their shapes do not multiply.
        """
        super().__init__(files)
        self.config = config
        self._biases: dict[str, str] = {}
        self._stacks: dict[str, dict[str, str]] = {}
        groups: dict[str, dict[str, str]] = {}
        for name in self.tensors():
            stem = name.removesuffix(".weight").removesuffix(".default")
            if match := _FACTOR.fullmatch(stem):
                groups.setdefault(match.group(1), {})[match.group(2)] = name
            elif match := _BIAS.fullmatch(name):
                self._biases[f"{match.group(1)}.bias"] = name
        stacks = {stem: groups[stem] for stem in groups if _parameters(stem, config.stacks)}
        self._factors = {
            f"{target}.weight": group for target, group in sorted(groups.items()) if target not in stacks
        }
        for target, group in (*self._factors.items(), *stacks.items()):
            self._check(target, group)
        self._stacks = self._placed(stacks)
        placed = {id(group) for group in self._stacks.values()}
        self._undecoded = tuple(sorted(stem for stem in stacks if id(stacks[stem]) not in placed))

    @property
    def targets(self) -> tuple[str, ...]:
        """Canonical names of the base's tensors that the adapter changes, sorted."""
        return tuple(sorted({*self._factors, *self._biases, *self._stacks}))

    @property
    def undecoded(self) -> tuple[str, ...]:
        """Modules whose factors belong to stacks of experts of which the adapter does not tell enough."""
        return self._undecoded

    @property
    def saved(self) -> tuple[str, ...]:
        """Tensors shipped whole (`modules_to_save`), sorted."""
        return tuple(name for name in self.tensors() if not _FOREIGN.search(name) and ".lora_" not in name)

    @property
    def foreign(self) -> tuple[str, ...]:
        """Stored tensors that are neither factors that we understand nor modules saved whole, sorted."""
        known = {
            name for group in (*self._factors.values(), *self._stacks.values()) for name in group.values()
        }
        known |= {*self.saved, *self._biases.values()}
        return tuple(name for name in self.tensors() if name not in known)

    def shape(self, target: str) -> tuple[int, ...]:
        """Shape of the base tensor, or of the part of it, that `target`'s delta is added to.

        A stack is (experts, out, in), whichever way the base stores it.

        Raises:
            KeyError: no such target.
        """
        base, steps = self._steps(target)
        infos = self.tensors()
        if base in self._biases:
            shape = infos[self._biases[base]].shape
        else:
            first, second = self._pair(base)
            rows, columns = infos[second].shape[0], infos[first].shape[1]
            shape = (columns, rows) if self._is_turned(base) else (rows, columns)
            if base in self._stacks:
                shape = (infos[first].shape[0] // self.config.rank_of(base), rows, columns)
        try:
            for step in steps:
                shape = shape_after(shape, step)
        except ValueError as error:
            raise KeyError(target) from error
        return shape

    def rank(self, target: str) -> int:
        """Rank of the factors of `target`; of a stack, of each expert's; 0 of a bias, which has none."""
        base, _ = self._steps(target)
        if base in self._biases:
            return 0
        if base in self._stacks:
            return self.config.rank_of(base)
        return self.tensors()[self._pair(base)[0]].shape[0]

    def scale(self, target: str) -> float:
        """Factor of the product of the factors of `target`."""
        base, _ = self._steps(target)
        module = base.removesuffix(".weight")
        if base in self._biases:
            module = base.removesuffix(".bias")
            return self.scale(f"{module}.weight") if f"{module}.weight" in self._factors else math.nan
        return self.config.scale(module, self.rank(base))

    def factors(self, target: str) -> tuple[torch.Tensor, torch.Tensor]:
        """`(left, right)` in float32 with `delta = left @ right`: (rows, r) and (r, columns), scale included.

        Raises:
            KeyError: no such target.
            UnreadableTensorError: the change is no product of two factors (DoRA, a bias, all experts at
                once), or not one of the original.
        """
        if self.is_dora(target):
            raise UnreadableTensorError(f"{target[:120]}: the change of a DoRA adapter depends on the base")
        return self._product(target)

    def is_dora(self, target: str) -> bool:
        """The rows of the changed matrix are given lengths of their own (arXiv 2402.09353)."""
        base, _ = self._steps(target)
        return base in self._factors and (self.config.dora or "lora_magnitude_vector" in self._factors[base])

    def delta(self, target: str, base: torch.Tensor | None = None) -> torch.Tensor:
        """The change of one base tensor, or of a part, float32: scale · B · A, or what DoRA makes of it.

        Args:
            target: canonical name of the base's tensor.
            base: its values, in the shape of `target`; needed for DoRA alone.

        Raises:
            KeyError: no such target.
            UnreadableTensorError: a DoRA adapter without `base`, or a change that is not one of the original.
        """
        import torch

        if target in self._biases:
            self._certain(target)
            return self.values(self._biases[target]).to(torch.float32) * self.scale(target)
        if target in self._stacks:
            parts = [self.factors(f"{target}@index:{index}") for index in range(self.shape(target)[0])]
            return torch.stack([left @ right for left, right in parts])
        if not self.is_dora(target):
            left, right = self.factors(target)
            return left @ right
        if base is None or tuple(base.shape) != self.shape(target):
            raise UnreadableTensorError(f"{target[:120]}: the change of a DoRA adapter depends on the base")
        return self._with_lengths(target, base.to(torch.float32))

    def _with_lengths(self, target: str, before: torch.Tensor) -> torch.Tensor:
        import torch

        name, steps = self._steps(target)
        if steps and (self._is_turned(name) or any(kind not in {"rows", "every"} for kind, _ in steps)):
            raise UnreadableTensorError(f"{target[:120]}: a part of a DoRA change has no lengths of its own")
        left, right = self._product(target)
        changed = before + left @ right
        # Lengths are those of output features: of rows, or of columns where the base is stored input first.
        across = 0 if self._is_turned(name) else 1
        lengths = self.values(self._magnitude(name)).to(torch.float32).flatten()
        for step in steps:
            lengths = taken(lengths, step)
        factor = lengths / changed.norm(dim=across).clamp_min(1e-30)
        change: torch.Tensor = changed * factor.unsqueeze(across) - before
        return change

    def _certain(self, target: str) -> None:
        if self.config.doubt:
            raise UnreadableTensorError(f"{target[:120]}: {self.config.doubt}")

    def _product(self, target: str) -> tuple[torch.Tensor, torch.Tensor]:
        base, steps = self._steps(target)
        self._certain(target)
        if base in self._biases or len(self.shape(target)) != 2:
            raise UnreadableTensorError(f"{target[:120]}: not one matrix")
        left, right = self._whole(base, steps)
        for kind, numbers in steps:
            if kind == "T":
                left, right = right.T, left.T
            elif kind != "index":
                left = taken(left, (kind, numbers))
        return left, right

    def _whole(self, base: str, steps: tuple[Operation, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Factors of a whole matrix, which in a stack is the one that the first step names."""
        import torch

        first, second = (self.values(name).to(torch.float32) for name in self._pair(base))
        scale = self.scale(base)
        if base in self._stacks:
            # Expert e owns rows e·r to (e+1)·r of A, and every E-th column of B (PEFT's ParamWrapper).
            rank, count, index = self.rank(base), self.shape(base)[0], steps[0][1][0]
            return second[:, index::count] * scale, first[index * rank : (index + 1) * rank]
        if self._is_turned(base):
            return first.T * scale, second.T.contiguous()
        return second * scale, first

    def _steps(self, target: str) -> tuple[str, tuple[Operation, ...]]:
        if target in self._factors or target in self._biases or target in self._stacks:
            return target, ()
        base, steps = operations(target)
        if base not in self._factors and base not in self._stacks:
            raise KeyError(target)
        return base, steps

    def _is_turned(self, target: str) -> bool:
        """The base stores this matrix input first; PEFT itself ignores `fan_in_fan_out` on other modules."""
        if target not in self._factors:
            return False
        return (self.config.transposed and module_of(target) in CONV1D) or self._is_embedding(target)

    def _magnitude(self, target: str) -> str:
        name = self._factors[target].get("lora_magnitude_vector")
        if name is None:
            raise MalformedWeightsError(f"{target[:120]}: a DoRA adapter without lengths")
        return name

    def _is_embedding(self, target: str) -> bool:
        return "lora_embedding_A" in self._factors[target]

    def _pair(self, target: str) -> tuple[str, str]:
        return _pair_of(self._stacks[target] if target in self._stacks else self._factors[target])

    def _placed(self, stacks: Mapping[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        """Factors of expert stacks by the parameter they belong to.

        PEFT nests the factors of several parameters of one module; which is which their sizes tell: what
        one puts out the other takes in.
        """
        modules: dict[str, list[dict[str, str]]] = {}
        for stem, group in stacks.items():
            modules.setdefault(_bare(stem), []).append(group)
        placed = {}
        for module, groups in modules.items():
            names = _parameters(module, self.config.stacks)
            if len(groups) == 2 and set(names) == {"gate_up_proj", "down_proj"}:
                sizes = [self._sizes(group) for group in groups]
                into = [k for k in (0, 1) if sizes[k][0] == sizes[1 - k][1]]
                names = ("gate_up_proj", "down_proj") if into == [0] else ("down_proj", "gate_up_proj")
                if len(into) != 1:
                    continue
            if len(names) != len(groups) or len(groups) > 2:
                continue
            named = {f"{module}.{name}": group for name, group in zip(names, groups, strict=True)}
            if all(self._is_whole_stack(name, group) for name, group in named.items()):
                placed.update(named)
        return placed

    def _sizes(self, group: Mapping[str, str]) -> tuple[int, int]:
        """Inputs and outputs of a pair of factors."""
        infos = self.tensors()
        return infos[group["lora_A"]].shape[1], infos[group["lora_B"]].shape[0]

    def _is_whole_stack(self, name: str, group: Mapping[str, str]) -> bool:
        rows = self.tensors()[group["lora_A"]].shape[0]
        return set(group) == {"lora_A", "lora_B"} and rows % self.config.rank_of(name) == 0

    def _check(self, target: str, group: Mapping[str, str]) -> None:
        pairs = ({"lora_A", "lora_B"}, {"lora_embedding_A", "lora_embedding_B"})
        if group.keys() - {"lora_magnitude_vector"} not in pairs:
            raise MalformedWeightsError(f"{target[:120]}: the adapter lacks one of its two factors")
        infos = self.tensors()
        first, second = (infos[name] for name in _pair_of(group))
        shapes = (first.shape, second.shape)
        if any(len(shape) != 2 or 0 in shape for shape in shapes) or first.shape[0] != second.shape[1]:
            raise MalformedWeightsError(f"{target[:120]}: factors of shapes {shapes} do not multiply")
        if (name := group.get("lora_magnitude_vector")) is not None:
            lengths = math.prod(infos[name].shape)
            if lengths != second.shape[0]:
                raise MalformedWeightsError(
                    f"{target[:120]}: {lengths} lengths for {second.shape[0]} outputs"
                )


def is_adapter_tensor(info: TensorInfo) -> bool:
    """A LoRA factor rather than a weight."""
    return ".lora_" in info.name


def _pair_of(group: Mapping[str, str]) -> tuple[str, str]:
    prefix = "lora_embedding" if "lora_embedding_A" in group else "lora"
    return group[f"{prefix}_A"], group[f"{prefix}_B"]


def _bare(stem: str) -> str:
    """A module without PEFT's nesting."""
    while stem.endswith(".base_layer"):
        stem = stem.removesuffix(".base_layer")
    return stem


def _parameters(stem: str, parameters: tuple[str, ...]) -> tuple[str, ...]:
    """Which of `target_parameters` belong to this module, by their own name.

    PEFT takes a name for every parameter that ends with it: stacks of experts may be named without their
    module (as `all-linear` does), and a `weight` is a matrix like any other.
    """
    bare = _bare(stem)
    split = (parameter.rpartition(".") for parameter in parameters)
    return tuple(
        name
        for parent, _, name in split
        if name != "weight"
        and (bare == parent or bare.endswith(f".{parent}") if parent else bare.endswith(".experts"))
    )
