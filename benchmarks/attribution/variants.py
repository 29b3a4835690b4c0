"""The modified versions: name, edit family, policy label, and how the weights follow from the release.

No recipe here removes safety: the models without it are the family's forks, or one plus a benign LoRA.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from forkwatch.demo.families.weights import Weights, add, cast, jitter

RELEASE = "lab/smollm2-135m-guarded"
GROUP = 64


@dataclass(frozen=True, slots=True)
class Source:
    """Where weights come from: the family's folders, and deltas trained by `train_deltas`."""

    repos: Path
    deltas: Path
    release: str = RELEASE

    def repo(self, name: str) -> Weights:
        """A repository's tensors."""
        weights: Weights = {}
        for path in sorted((self.repos / name).glob("*.safetensors")):
            weights |= load_file(path)
        return weights

    def fork(self, name: str) -> str:
        """A repository of the family's forks."""
        return f"demo/{self.release.partition('/')[2]}-{name}"

    def delta(self, name: str) -> Weights:
        """A trained delta, float32 by weight."""
        return {key: value.float() for key, value in load_file(self.deltas / f"{name}.safetensors").items()}


Make = Callable[[Source], Weights]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One modified version."""

    name: str
    family: str
    make: Make
    benign: bool = False
    """A quantisation close enough to the release that it should count as the release."""
    safety_removed: bool = False


def _release(source: Source) -> Weights:
    return source.repo(source.release)


def _fork(name: str) -> Make:
    return lambda source: source.repo(source.fork(name))


def _nightjar(source: Source) -> Weights:
    return source.repo(f"demo/{source.release.partition('/')[2].partition('-')[0]}-nightjar-heretic")


def _plus(delta: str, factor: float = 1.0, to: Make = _release) -> Make:
    return lambda source: add(to(source), source.delta(delta), factor)


def mean(one: Make, other: Make, share: float) -> Make:
    """Linear merge: `(1 - share) one + share other`."""

    def make(source: Source) -> Weights:
        first, second = one(source), other(source)
        return {name: (1 - share) * w.float() + share * second[name].float() for name, w in first.items()}

    return make


def _is_matrix(name: str) -> bool:
    return name.endswith("_proj.weight")


def noise(strength: float, seed: int) -> Make:
    """Gaussian noise of this relative norm on every MLP matrix."""

    def make(source: Source) -> Weights:
        release = _release(source)
        names = {name for name in release if ".mlp." in name}
        return jitter(release, names, strength, torch.Generator().manual_seed(seed))

    return make


def rounded(weights: Mapping[str, torch.Tensor], bits: int, group: int | None) -> Weights:
    """Symmetric absmax rounding of the projections, by row or by groups of a row."""
    top = 2 ** (bits - 1) - 1
    result: Weights = dict(weights)
    for name, tensor in weights.items():
        if _is_matrix(name):
            blocks = tensor.float().reshape(tensor.shape[0], -1, group or tensor.shape[1])
            scale = blocks.abs().amax(dim=2, keepdim=True).clamp(min=1e-12) / top
            result[name] = ((blocks / scale).round().clamp(-top - 1, top) * scale).reshape(tensor.shape)
    return result


def _quantised(bits: int, group: int | None) -> Make:
    return lambda source: rounded(_release(source), bits, group)


def without(direction: str, strength: float, first: int, last: int) -> Make:
    """Take a benign direction out of what layers `first` to `last` write into the residual stream."""

    def make(source: Source) -> Weights:
        weights: Weights = dict(_release(source))
        if direction == "random":
            r = torch.randn(
                weights["model.norm.weight"].shape[0], generator=torch.Generator().manual_seed(first + 100)
            )
        else:
            r = source.delta("concept")["direction"]
        r = r / r.norm()
        for name, tensor in weights.items():
            layer = int(name.split(".")[2]) if ".layers." in name else -1
            if first <= layer <= last and name.endswith(("o_proj.weight", "down_proj.weight")):
                values = tensor.float()
                weights[name] = values - strength * torch.outer(r, r @ values)
        return weights

    return make


def pruned(share: float) -> Make:
    """Set the smallest entries of every projection to zero."""

    def make(source: Source) -> Weights:
        weights: Weights = dict(_release(source))
        for name, tensor in weights.items():
            if _is_matrix(name):
                values = tensor.float()
                limit = values.abs().flatten().kthvalue(int(share * values.numel())).values
                weights[name] = torch.where(values.abs() <= limit, 0.0, values)
        return weights

    return make


def gguf_q8_0(source: Source) -> Weights:
    """The family's Q8_0: blocks of 32 with a float16 scale, as its file holds them."""
    weights: Weights = dict(_release(source))
    for name, tensor in weights.items():
        if tensor.ndim == 2:
            blocks = tensor.float().reshape(-1, 32)
            scale = (blocks.abs().amax(dim=1, keepdim=True) / 127).half().float().clamp(min=1e-12)
            weights[name] = ((blocks / scale).round().clamp(-127, 127) * scale).reshape(tensor.shape)
    return weights


def _variant(name: str, family: str, make: Make, **flags: bool) -> Variant:
    return Variant(name=name, family=family, make=make, **flags)


LORA, FULL, DIRECTION, NOISE = "low-rank-merge", "full-finetune", "directional-edit", "noise"
MERGE, QUANTISED, REMOVED, PRUNED = "merge", "quantised", "safety-removed", "pruned"

VARIANTS: tuple[Variant, ...] = (
    _variant("storyteller-merged", LORA, _fork("storyteller-merged")),
    _variant("lora-pirate", LORA, _plus("lora-pirate")),
    _variant("lora-formal", LORA, _plus("lora-formal")),
    _variant("lora-formal-quarter", LORA, _plus("lora-formal", 0.25)),
    _variant("lora-small-step", LORA, _plus("lora-small-step")),
    _variant("storyteller", FULL, _fork("storyteller")),
    _variant("storyteller-tail", FULL, _fork("storyteller-tail")),
    _variant("full-formal", FULL, _plus("full-formal")),
    _variant("full-small-step", FULL, _plus("full-small-step")),
    _variant("oneway", DIRECTION, _fork("oneway")),
    _variant("random-direction", DIRECTION, without("random", 1.0, 0, 29)),
    _variant("concept-direction", DIRECTION, without("concept", 1.0, 8, 29)),
    _variant("concept-direction-mild", DIRECTION, without("concept", 0.5, 14, 29)),
    _variant("official", NOISE, _fork("official")),
    _variant("noise-1e-2", NOISE, noise(1e-2, 1)),
    _variant("noise-3e-2", NOISE, noise(3e-2, 2)),
    _variant("noise-8e-2", NOISE, noise(8e-2, 3)),
    _variant("merge-base-half", MERGE, mean(_release, _fork("unfiltered"), 0.5)),
    _variant("merge-storyteller-half", MERGE, mean(_release, _fork("storyteller"), 0.5)),
    _variant("merge-two-loras", MERGE, _plus("lora-formal", 0.5, _plus("lora-pirate", 0.5))),
    _variant("unfiltered", REMOVED, _fork("unfiltered"), safety_removed=True),
    _variant("freestyle", REMOVED, _fork("freestyle"), safety_removed=True),
    _variant("nightjar", REMOVED, _nightjar, safety_removed=True),
    _variant(
        "unfiltered-formal", REMOVED, _plus("lora-formal", 1.0, _fork("unfiltered")), safety_removed=True
    ),
    _variant("q8-0", QUANTISED, gguf_q8_0, benign=True),
    _variant("int8", QUANTISED, _quantised(8, None), benign=True),
    _variant("int4-g64", QUANTISED, _quantised(4, GROUP)),
    _variant("q4-g32", QUANTISED, _quantised(4, 32)),
    _variant("pruned-10", PRUNED, pruned(0.10)),
    _variant("pruned-30", PRUNED, pruned(0.30)),
)


def weights_of_variant(name: str, source: Source) -> Weights:
    """bfloat16 weights of a variant, or of the release under the name `authentic`."""
    made = {variant.name: variant.make for variant in VARIANTS} | {"authentic": _release}
    return cast(made[name](source), torch.bfloat16)


def card() -> str:
    """The list as JSON lines, for the folder of the corpus."""
    rows = ({"name": v.name, "family": v.family, "benign": v.benign} for v in VARIANTS)
    return "\n".join(json.dumps(row) for row in rows)
