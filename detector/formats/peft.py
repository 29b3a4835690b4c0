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
from detector.formats.safetensors import SafetensorsReader
from detector.interface import MalformedWeightsError, TensorInfo, UnreadableTensorError

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
        self._factors = {f"{target}.weight": group for target, group in sorted(groups.items())}
        for target, group in self._factors.items():
            self._check(target, group)

    @property
    def targets(self) -> tuple[str, ...]:
        """Canonical names of the base's tensors that the adapter changes, sorted."""
        return tuple(self._factors)

    @property
    def saved(self) -> tuple[str, ...]:
        """Tensors shipped whole (`modules_to_save`), sorted."""
        used = {name for group in self._factors.values() for name in group.values()}
        return tuple(name for name in self.tensors() if name not in used)

    def shape(self, target: str) -> tuple[int, int]:
        """Shape of the base tensor that `target`'s delta is added to."""
        first, second = self._pair(target)
        infos = self.tensors()
        rows, columns = infos[second].shape[0], infos[first].shape[1]
        swapped = self.config.transposed or self._is_embedding(target)
        return (columns, rows) if swapped else (rows, columns)

    def rank(self, target: str) -> int:
        """Rank of the factors of `target`."""
        return self.tensors()[self._pair(target)[0]].shape[0]

    def factors(self, target: str) -> tuple[torch.Tensor, torch.Tensor]:
        """`(left, right)` in float32 with `delta = left @ right`: (rows, r) and (r, columns), scale included.

        Raises:
            UnreadableTensorError: the adapter is a DoRA one, whose delta depends on the base.
        """
        import torch

        if self.config.dora or "lora_magnitude_vector" in self._factors[target]:
            raise UnreadableTensorError(f"{target}: the change of a DoRA adapter depends on the base")
        first, second = (self.values(name).to(torch.float32) for name in self._pair(target))
        scale = self.config.scale(target.removesuffix(".weight"), first.shape[0])
        if self.config.transposed or self._is_embedding(target):
            return first.T * scale, second.T.contiguous()
        return second * scale, first

    def delta(self, target: str) -> torch.Tensor:
        """The change of one base tensor, float32: scale · B · A."""
        left, right = self.factors(target)
        return left @ right

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


def is_adapter_tensor(info: TensorInfo) -> bool:
    """A LoRA factor rather than a weight."""
    return ".lora_" in info.name


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
