"""A PEFT adapter shipped alone: LoRA factors and the weight change they stand for.

Nothing of the adapter's configuration is executed: its patterns are matched as literal suffixes, never as
regular expressions.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crawler.interface import ByteSource
from detector.errors import MalformedWeightsError, UnreadableTensorError
from detector.formats.safetensors import SafetensorsReader
from detector.interface import TensorInfo

if TYPE_CHECKING:
    import torch

MAX_CONFIG = 1 << 20
MAX_RANK = 1 << 16
_FACTOR = re.compile(r"(.+)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)")
_LITERAL = re.compile(r"[A-Za-z0-9_.]+")


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The part of `adapter_config.json` that the arithmetic needs."""

    rank: int
    alpha: float
    rslora: bool
    dora: bool
    transposed: bool
    """`fan_in_fan_out`: the base stores its matrices input first."""
    alphas: tuple[tuple[str, float], ...]
    """`alpha_pattern`: module suffix → alpha."""
    initialised_from_base: str = ""
    """`pissa`, `olora`, `corda`…: the base was changed before training; the files do not say how."""
    stacks: tuple[str, ...] = ()
    """`target_parameters`: names of stacked tensors (experts) that have factors of their own kind."""

    def scale(self, target: str, rank: int) -> float:
        """Factor of B·A for one target module: alpha / r, or alpha / √r with rsLoRA (arXiv 2312.03732)."""
        alpha = next(
            (value for suffix, value in self.alphas if target == suffix or target.endswith(f".{suffix}")),
            self.alpha,
        )
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def read_adapter_config(source: ByteSource, path: str) -> AdapterConfig:
    """Read and check `adapter_config.json`.

    Raises:
        MalformedWeightsError: not a LoRA configuration we understand.
    """
    if source.size > MAX_CONFIG:
        raise MalformedWeightsError(f"{path}: {source.size} bytes")
    try:
        config = json.loads(source.read(0, source.size))
    except (ValueError, RecursionError) as error:
        raise MalformedWeightsError(f"{path}: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise MalformedWeightsError(f"{path}: not a LoRA adapter")
    rank = config.get("r")
    if type(rank) is not int or not 0 < rank <= MAX_RANK:
        raise MalformedWeightsError(f"{path}: r is not a small natural number")
    return AdapterConfig(
        rank=rank,
        alpha=_finite(config.get("lora_alpha", 8), path),
        rslora=config.get("use_rslora") is True,
        dora=config.get("use_dora") is True,
        transposed=config.get("fan_in_fan_out") is True,
        alphas=_alphas(config.get("alpha_pattern") or {}, path),
        initialised_from_base=_changes_base(config.get("init_lora_weights")),
        stacks=_names(config.get("target_parameters")),
    )


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
        groups: dict[str, dict[str, str]] = {}
        for name in self.tensors():
            stem = name.removesuffix(".weight").removesuffix(".default")
            if match := _FACTOR.fullmatch(stem):
                groups.setdefault(match.group(1), {})[match.group(2)] = name
        stacks = {stem for stem in groups if _is_stack(stem, config.stacks)}
        self._undecoded = tuple(sorted(stacks))
        self._of_stacks = frozenset(name for stem in stacks for name in groups[stem].values())
        self._factors = {
            f"{target}.weight": group for target, group in sorted(groups.items()) if target not in stacks
        }
        for target, group in self._factors.items():
            self._check(target, group)

    @property
    def targets(self) -> tuple[str, ...]:
        """Canonical names of the base's tensors that the adapter changes, sorted."""
        return tuple(self._factors)

    @property
    def undecoded(self) -> tuple[str, ...]:
        """Modules whose factors belong to stacks of experts, and are not decoded."""
        return self._undecoded

    @property
    def saved(self) -> tuple[str, ...]:
        """Tensors shipped whole (`modules_to_save`), sorted."""
        used = {name for group in self._factors.values() for name in group.values()}
        return tuple(name for name in self.tensors() if name not in used and name not in self._of_stacks)

    def shape(self, target: str) -> tuple[int, int]:
        """Shape of the base tensor that `target`'s delta is added to."""
        first, second = self._pair(target)
        infos = self.tensors()
        rows, columns = infos[second].shape[0], infos[first].shape[1]
        return (columns, rows) if self._is_turned(target) else (rows, columns)

    def rank(self, target: str) -> int:
        """Rank of the factors of `target`."""
        return self.tensors()[self._pair(target)[0]].shape[0]

    def factors(self, target: str) -> tuple[torch.Tensor, torch.Tensor]:
        """`(left, right)` in float32 with `delta = left @ right`: (rows, r) and (r, columns), scale included.

        Raises:
            UnreadableTensorError: the change is no product of two factors (DoRA), or not one of the original.
        """
        if self.is_dora(target):
            raise UnreadableTensorError(f"{target[:120]}: the change of a DoRA adapter depends on the base")
        return self._product(target)

    def is_dora(self, target: str) -> bool:
        """The rows of the changed matrix are given lengths of their own (arXiv 2402.09353)."""
        return self.config.dora or "lora_magnitude_vector" in self._factors[target]

    def delta(self, target: str, base: torch.Tensor | None = None) -> torch.Tensor:
        """The change of one base tensor, float32: scale · B · A, or what DoRA makes of it.

        Args:
            target: canonical name of the base's tensor.
            base: its values, (rows, columns); needed for DoRA alone.

        Raises:
            UnreadableTensorError: a DoRA adapter without `base`, or a change that is not one of the original.
        """
        import torch

        if not self.is_dora(target):
            left, right = self.factors(target)
            return left @ right
        if base is None or tuple(base.shape) != self.shape(target):
            raise UnreadableTensorError(f"{target[:120]}: the change of a DoRA adapter depends on the base")
        left, right = self._product(target)
        before = base.to(torch.float32)
        changed = before + left @ right
        # Lengths are those of output features: of rows, or of columns where the base is stored input first.
        across = 0 if self._is_turned(target) else 1
        lengths = self.values(self._magnitude(target)).to(torch.float32).flatten()
        factor = lengths / changed.norm(dim=across).clamp_min(1e-30)
        change: torch.Tensor = changed * factor.unsqueeze(across) - before
        return change

    def _product(self, target: str) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        if self.config.initialised_from_base:
            name = self.config.initialised_from_base
            raise UnreadableTensorError(f"{target[:120]}: {name} changed the base before training")
        first, second = (self.values(name).to(torch.float32) for name in self._pair(target))
        scale = self.config.scale(target.removesuffix(".weight"), first.shape[0])
        if self._is_turned(target):
            return first.T * scale, second.T.contiguous()
        return second * scale, first

    def _is_turned(self, target: str) -> bool:
        """The base stores this matrix input first."""
        return self.config.transposed or self._is_embedding(target)

    def _magnitude(self, target: str) -> str:
        name = self._factors[target].get("lora_magnitude_vector")
        if name is None:
            raise MalformedWeightsError(f"{target[:120]}: a DoRA adapter without lengths")
        return name

    def _is_embedding(self, target: str) -> bool:
        return "lora_embedding_A" in self._factors[target]

    def _pair(self, target: str) -> tuple[str, str]:
        group = self._factors[target]
        prefix = "lora_embedding" if self._is_embedding(target) else "lora"
        return group[f"{prefix}_A"], group[f"{prefix}_B"]

    def _check(self, target: str, group: Mapping[str, str]) -> None:
        pairs = ({"lora_A", "lora_B"}, {"lora_embedding_A", "lora_embedding_B"})
        if group.keys() - {"lora_magnitude_vector"} not in pairs:
            raise MalformedWeightsError(f"{target[:120]}: the adapter lacks one of its two factors")
        infos = self.tensors()
        first, second = (infos[name] for name in self._pair(target))
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


def _is_stack(stem: str, parameters: tuple[str, ...]) -> bool:
    """The module of one of these parameters, on which PEFT hangs the factors, nested if there are several."""
    bare = stem.removesuffix(".base_layer")
    while bare.endswith(".base_layer"):
        bare = bare.removesuffix(".base_layer")
    parents = {parameter.rpartition(".")[0] for parameter in parameters}
    return any(parent and (bare == parent or bare.endswith(f".{parent}")) for parent in parents)


def _changes_base(value: object) -> str:
    """Initialisations after which PEFT subtracts the initial factors from the base."""
    if not isinstance(value, str):
        return ""
    found = (name for name in ("pissa", "olora", "corda", "loftq", "lora_ga") if value.startswith(name))
    return next(found, "")


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(name for name in value if isinstance(name, str) and _LITERAL.fullmatch(name))


def _finite(value: object, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise MalformedWeightsError(f"{path}: an alpha is not a finite number")
    return float(value)


def _alphas(value: object, path: str) -> tuple[tuple[str, float], ...]:
    if not isinstance(value, dict):
        raise MalformedWeightsError(f"{path}: alpha_pattern is not an object")
    for key in value:
        if not isinstance(key, str) or not _LITERAL.fullmatch(key):
            raise MalformedWeightsError(f"{path}: alpha_pattern is a regular expression")
    return tuple((key, _finite(number, path)) for key, number in value.items())
