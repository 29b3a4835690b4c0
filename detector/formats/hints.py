"""What a checkpoint's `config.json` says about its quantisation: hostile text, taken as hints only.

A hint settles what shapes leave open (the convention of GPTQ's zero points, the size of an uneven group). It
is never believed against the tensors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from crawler.interface import ByteSource

MAX_CONFIG = 4 << 20
"""Bytes of `config.json`; the longest real ones list the modules that were left unquantised."""
MAX_GROUP = 1 << 20
BITS = frozenset({2, 3, 4, 8})
MAX_MODULES = 1 << 16
"""Modules with bits of their own; MLX lists each one that differs."""


@dataclass(frozen=True, slots=True)
class Hints:
    """Every field is None or empty unless the configuration says something sane about it."""

    method: str = ""
    """`gptq`, `awq`, `fp8`, `bitsandbytes`, `compressed-tensors`…, lower case."""
    layout: str = ""
    """`checkpoint_format`, `version` or `format`: `gptq_v2`, `gemm`, `pack-quantized`…, lower case."""
    bits: int | None = None
    group: int | None = None
    act_order: bool | None = None
    block: tuple[int, int] | None = None
    """`weight_block_size` of FP8."""
    modules: tuple[tuple[str, int, int], ...] = ()
    """MLX: module, bits and group of those that have their own."""


NO_HINTS = Hints()


def read_hints(source: ByteSource) -> Hints:
    """The hints in a `config.json` or `quantize_config.json`; none if it is not a sane JSON object.

    Raises:
        CrawlerError: the bytes could not be had.
    """
    if source.size > MAX_CONFIG:
        return NO_HINTS
    try:
        config = json.loads(source.read(0, source.size))
    except (ValueError, RecursionError):
        return NO_HINTS
    if not isinstance(config, dict):
        return NO_HINTS
    keys = ("quantization_config", "compression_config", "quantization")
    inner = next((config[key] for key in keys if isinstance(config.get(key), dict)), None)
    return _hints(inner if isinstance(inner, dict) else config)


def _hints(config: dict[str, object]) -> Hints:
    weights = _compressed_weights(config)
    scheme = weights or config
    group = scheme.get("group_size", scheme.get("q_group_size"))
    bits = scheme.get("num_bits", scheme.get("bits", scheme.get("w_bit")))
    order = config.get("desc_act")
    return Hints(
        method=_word(config.get("quant_method")),
        layout=_word(config.get("checkpoint_format") or config.get("version") or config.get("format")),
        bits=bits if type(bits) is int and 0 < bits <= 8 else None,
        group=group if type(group) is int and 0 < group <= MAX_GROUP else None,
        act_order=order if isinstance(order, bool) else None,
        block=_block(config.get("weight_block_size")),
        modules=_modules(config),
    )


def _modules(config: dict[str, object]) -> tuple[tuple[str, int, int], ...]:
    found = list[tuple[str, int, int]]()
    for module, scheme in config.items():
        if isinstance(scheme, dict) and "." in module and len(found) < MAX_MODULES:
            bits, group = scheme.get("bits"), scheme.get("group_size")
            if type(bits) is int and type(group) is int and 0 < bits <= 8 and 0 < group <= MAX_GROUP:
                found.append((module, bits, group))
    return tuple(found)


def _compressed_weights(config: dict[str, object]) -> dict[str, object] | None:
    """The weight scheme of compressed-tensors, if all groups of modules have the same."""
    groups = config.get("config_groups")
    if not isinstance(groups, dict):
        return None
    found = [group.get("weights") for group in groups.values() if isinstance(group, dict)]
    first = found[0] if found else None
    return first if isinstance(first, dict) and all(other == first for other in found) else None


def _word(value: object) -> str:
    return value.lower() if isinstance(value, str) and len(value) <= 64 else ""


def _block(value: object) -> tuple[int, int] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    rows, columns = value
    if (
        type(rows) is not int
        or type(columns) is not int
        or not (0 < rows <= MAX_GROUP and 0 < columns <= MAX_GROUP)
    ):
        return None
    return rows, columns
