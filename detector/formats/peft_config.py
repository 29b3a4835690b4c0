"""`adapter_config.json` of a LoRA adapter: hostile text, of which the part that the arithmetic needs is kept.

Nothing of it is executed. PEFT matches the keys of `alpha_pattern` as regular expressions; here a key is a
row of letters, digits and dots with at most `MAX_GAPS` places for "anything" or "a number", and any other key
makes the scales unknown, because it may be the one that counts.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

from crawler.interface import ByteSource
from detector.errors import MalformedWeightsError, UnreadableTensorError

MAX_CONFIG = 1 << 20
MAX_RANK = 1 << 16
MAX_GAPS = 2
MAX_PATTERNS = 512
"""Each is tried on every module, and Python keeps so many compiled; one for each of 224 modules is usual."""
_NAME = re.compile(r"[A-Za-z0-9_.]+")
_TOKEN = re.compile(r"\\\.|\\d\+|\[0-9\]\+|\.\*|[A-Za-z0-9_.]")
_GAPS = {r"\.": r"\.", r"\d+": r"\d{1,5}", "[0-9]+": r"\d{1,5}", ".*": ".{0,200}", ".": "."}
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_VARIANTS = {
    "use_qalora": "QALoRA pools the inputs before its first factor",
    "use_bdlora": "BD-LoRA's factors are block-diagonal",
    "kasa_config": "KaSA cuts the base down before training",
    "layer_replication": "the base's layers were repeated first",
    "alora_invocation_tokens": "an activated LoRA changes the model only after certain tokens",
    "arrow_config": "Arrow routes between several adapters",
    "monteclora_config": "MonteCLoRA's factors are drawn, not stored",
}
"""Options of PEFT under which the product of the stored factors is not the change of the weights."""


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The part of `adapter_config.json` that the arithmetic needs."""

    rank: int
    alpha: float
    rslora: bool
    dora: bool
    transposed: bool
    """`fan_in_fan_out`: the base stores the matrices of its `Conv1D` modules input first."""
    alphas: tuple[tuple[str, float], ...]
    """`alpha_pattern`: safe expression for the end of a module's name → alpha; the first that fits counts."""
    stacks: tuple[str, ...] = ()
    """`target_parameters`: names of stacked tensors (experts) that have factors of their own kind."""
    ranks: tuple[tuple[str, int], ...] = ()
    """`rank_pattern`, in the same form: ranks of stacks, which their shapes do not tell."""
    doubt: str = ""
    """Why the product of the factors is not the change of the original; empty if it is."""

    def scale(self, target: str, rank: int) -> float:
        """Factor of B·A for one target module: alpha / r, or alpha / √r with rsLoRA (arXiv 2312.03732)."""
        alpha = next(
            (value for pattern, value in self.alphas if re.fullmatch(rf"(?:.*\.)?{pattern}", target)),
            self.alpha,
        )
        return alpha / (math.sqrt(rank) if self.rslora else rank)

    def rank_of(self, target: str) -> int:
        """Rank that the configuration states for one target module or parameter."""
        return next(
            (rank for pattern, rank in self.ranks if re.fullmatch(rf"(?:.*\.)?{pattern}", target)), self.rank
        )


def read_adapter_config(source: ByteSource, path: str) -> AdapterConfig:
    """Read and check `adapter_config.json`.

    Raises:
        MalformedWeightsError: not an adapter's configuration, or with absurd numbers.
        UnreadableTensorError: an adapter of another kind than LoRA.
        CrawlerError: the bytes could not be had.
    """
    if source.size > MAX_CONFIG:
        raise MalformedWeightsError(f"{path}: {source.size} bytes")
    try:
        config = json.loads(source.read(0, source.size))
    except (ValueError, RecursionError) as error:
        raise MalformedWeightsError(f"{path}: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise MalformedWeightsError(f"{path}: not the configuration of an adapter")
    if config["peft_type"] != "LORA":
        raise UnreadableTensorError(
            f"{path}: only LoRA adapters are decoded, not {config['peft_type'][:40]!a}"
        )
    rank = config.get("r")
    if type(rank) is not int or not 0 < rank <= MAX_RANK:
        raise MalformedWeightsError(f"{path}: r is not a small natural number")
    alphas, unclear = _patterns("alpha_pattern", config, path)
    stacks = _names(config.get("target_parameters"))
    ranks, unclear_ranks = _patterns("rank_pattern", config, path) if stacks else ((), "")
    if any(not value.is_integer() or not 0 < value <= MAX_RANK for _, value in ranks):
        raise MalformedWeightsError(f"{path}: a rank is not a small natural number")
    return AdapterConfig(
        rank=rank,
        alpha=_finite(config.get("lora_alpha", 8), path),
        rslora=config.get("use_rslora") is True,
        dora=config.get("use_dora") is True,
        transposed=config.get("fan_in_fan_out") is True,
        alphas=alphas,
        stacks=stacks,
        ranks=tuple((pattern, int(value)) for pattern, value in ranks),
        doubt=_changed_base(config.get("init_lora_weights")) or _variant(config) or unclear or unclear_ranks,
    )


def _changed_base(value: object) -> str:
    """Initialisations after which PEFT subtracts the initial factors from the base."""
    found = (name for name in _CHANGES_BASE if isinstance(value, str) and value.startswith(name))
    name = next(found, "")
    return f"{name} changed the base before training" if name else ""


def _variant(config: dict[str, object]) -> str:
    return next((reason for option, reason in _VARIANTS.items() if config.get(option)), "")


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(name for name in value if isinstance(name, str) and _NAME.fullmatch(name))


def _finite(value: object, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedWeightsError(f"{path}: an alpha is not a finite number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise MalformedWeightsError(f"{path}: an alpha is not a finite number")
    return number


def _patterns(option: str, config: dict[str, object], path: str) -> tuple[tuple[tuple[str, float], ...], str]:
    """Patterns with their numbers, and what is unclear about them."""
    value = config.get(option) or {}
    if not isinstance(value, dict):
        raise MalformedWeightsError(f"{path}: {option} is not an object")
    if len(value) > MAX_PATTERNS:
        return (), f"{option} has {len(value)} expressions, of which none is tried"
    found, unclear = [], ""
    for key, number in value.items():
        pattern = _pattern(key)
        if pattern is None:
            unclear = f"{option} has the expression {key[:80]!a}, which is not tried"
        else:
            found.append((pattern, _finite(number, path)))
    return tuple(found), unclear


def _pattern(key: str) -> str | None:
    """An expression that takes time linear in a name's length to its `MAX_GAPS`, or None."""
    tokens, place = [], 1 if key.startswith("^") else 0
    end = len(key) - 1 if key.endswith("$") else len(key)
    while place < end:
        match = _TOKEN.match(key, place, end)
        if match is None:
            return None
        tokens.append(match[0])
        place = match.end()
    if not tokens or sum(token in {r"\d+", "[0-9]+", ".*"} for token in tokens) > MAX_GAPS:
        return None
    return "".join(_GAPS.get(token, token) for token in tokens)
