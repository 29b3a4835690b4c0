"""Every quantisation layout we know, tried on the stored tensors of one checkpoint."""

from __future__ import annotations

import re

from detector.errors import MalformedWeightsError
from detector.formats import awq, bnb, foreign, fp4, gptq, hqq, mlx, packed, scaled
from detector.formats.encoded import Encoded
from detector.formats.hints import Hints
from detector.formats.stored import StoredFiles

_SMALL = re.compile(
    r"(\.quant_state\.bitsandbytes__\w+|\.quant_map|\.weight_shape|\.weight_format|"
    r"\.shape|\.nbits|\.group_size|\.axis)$"
)
_HELPERS = re.compile(
    r"(^|[._])(input_scale|output_scale|activation_scale|input_global_scale|input_zero_point|output_zero_point|"
    r"k_scale|v_scale|q_scale|kv_scale|kv_cache_scale|k_zero_point|v_zero_point|smooth_scale|qweight_type|wf)$"
)
"""Scales of activations and of the key-value cache: they say nothing about the weights."""


def find_encoded(files: StoredFiles, hints: Hints) -> tuple[dict[str, Encoded], frozenset[str]]:
    """Logical tensors by the name that each has unquantised, and the stored names that are no tensors.

    Raises:
        MalformedWeightsError: parts contradict each other, or two layouts claim the same parts.
        CrawlerError: the bytes could not be had.
    """
    stored = files.tensors
    files.prefetch([name for name in stored if _SMALL.search(name)])
    found: dict[str, Encoded] = {}
    for group in (
        gptq.find(stored, hints),
        awq.find(stored, hints),
        bnb.find(stored, files, hints),
        packed.find(stored, files, hints),
        fp4.find(stored, hints),
        mlx.find(stored, hints),
        hqq.find(stored, files),
        foreign.find(stored),
        scaled.find(stored, hints),
    ):
        found.update({name: encoded for name, encoded in group.items() if name not in found})
    used = [part for encoded in found.values() for part in encoded.parts]
    if len(set(used)) < len(used):
        raise MalformedWeightsError("two quantised tensors share a part")
    for name, encoded in found.items():
        if name in stored and name not in encoded.parts:
            raise MalformedWeightsError(f"{name[:120]} is stored plain and quantised")
    helpers = {name for name in stored if found and _HELPERS.search(name)} - set(used)
    return found, frozenset(used) | helpers
