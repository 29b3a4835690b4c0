"""A quantised fork is named with its scheme, and nothing else is said about it; an edit under it still is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from detector.diff import diff_weights
from detector.formats import open_weights
from detector.grid import CODEBOOKS
from detector.interface import Certainty, EditKind, LineageStatus
from tests.detector import zoo
from tests.detector.packing import Tensors, awq, bnb4, gptq, opened
from tests.detector.zoo import one_file

SHAPE = zoo.Shape(hidden=64, inter=128, layers=3, heads=4, kv_heads=2, vocab=128)
BASE = zoo.base(11, SHAPE)


def fp8_rows(name: str, value: torch.Tensor) -> Tensors:
    scales = value.abs().amax(1, keepdim=True) / 448
    return {name: (value / scales).to(torch.float8_e4m3fn), f"{name}_scale": scales}


def fp8_blocks(name: str, value: torch.Tensor) -> Tensors:
    rows, columns = value.shape
    scales = torch.ones(-(-rows // 128), -(-columns // 128))
    for row in range(scales.shape[0]):
        for column in range(scales.shape[1]):
            part = value[128 * row : 128 * (row + 1), 128 * column : 128 * (column + 1)]
            scales[row, column] = part.abs().max() / 448
    spread = scales.repeat_interleave(128, 0).repeat_interleave(128, 1)[:rows, :columns]
    return {name: (value / spread).to(torch.float8_e4m3fn), f"{name}_scale_inv": scales}


def nf4(name: str, value: torch.Tensor) -> Tensors:
    blocks = value.reshape(-1, 64)
    absmax = blocks.abs().amax(1)
    book = torch.tensor(CODEBOOKS["nf4"])
    codes = (blocks[..., None] / absmax[:, None, None] - book).abs().argmin(-1)
    return bnb4(name, codes.reshape(value.shape), absmax)


def int8(name: str, value: torch.Tensor) -> Tensors:
    largest = value.abs().amax(1)
    codes = torch.round(value * (127 / largest)[:, None]).to(torch.int8)
    return {name: codes, name.replace(".weight", ".SCB"): largest}


def _nearest(value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Asymmetric four-bit codes (in, out), zeros and scales (groups of 32, out)."""
    groups = value.T.reshape(-1, 32, value.shape[0])
    low, high = groups.amin(1).clamp_max(0), groups.amax(1).clamp_min(0)
    scales = ((high - low) / 15).half()
    zeros = torch.round(-low / scales.float()).clamp(0, 15).to(torch.int64)
    codes = torch.round(groups / scales.float()[:, None]) + zeros[:, None]
    return codes.clamp(0, 15).to(torch.int64).reshape(value.T.shape), zeros, scales


def quantised(weights: zoo.Weights, pack: Callable[[str, torch.Tensor], Tensors]) -> Tensors:
    """Every linear layer packed, everything else as it is."""
    stored: Tensors = {}
    for name, value in weights.items():
        stored |= pack(name, value.float()) if zoo.is_linear(name) else {name: value}
    return stored


PACKERS: dict[str, Callable[[str, torch.Tensor], Tensors]] = {
    "F8_E4M3-ROW": fp8_rows,
    "F8_E4M3-BLOCK": fp8_blocks,
    "BNB-NF4": nf4,
    "BNB-INT8": int8,
    "GPTQ-INT4-G32": lambda name, value: gptq(name.removesuffix(".weight"), *_nearest(value)),
    "AWQ-INT4-G32": lambda name, value: awq(name.removesuffix(".weight"), *_nearest(value)),
}
RECREATED = {"BNB-NF4", "BNB-INT8", "F8_E4M3-ROW"}
"""Schemes that follow from the original alone, under the usual scales."""
CONFIG = {"quantization_config": {"quant_method": "gptq", "checkpoint_format": "gptq"}}


@pytest.mark.parametrize("scheme", sorted(PACKERS))
def test_a_quantised_fork_is_quantised_and_nothing_else(scheme: str) -> None:
    """One edit, with the scheme; no tensor came or went; lineage holds through the quantisation."""
    pack = PACKERS[scheme]
    fork = opened(quantised(BASE, pack), CONFIG if scheme.startswith("GPTQ") else None)
    assert set(fork.tensors()) == set(BASE)
    diff = diff_weights(open_weights(one_file(BASE)), fork)
    assert [edit.kind for edit in diff.edits] == [EditKind.QUANTIZED]
    found = diff.edits[0].detail.scheme or ""
    assert found == scheme or (scheme == "F8_E4M3-BLOCK" and found.startswith("F8_E4M3-"))
    assert diff.lineage.status in {LineageStatus.PROVED, LineageStatus.CONSISTENT}
    assert diff.edits[0].certainty is (Certainty.PROVED if scheme in RECREATED else Certainty.CONSISTENT)


@pytest.mark.parametrize("scheme", ["F8_E4M3-ROW", "BNB-INT8", "BNB-NF4"])
def test_a_directional_edit_shows_under_the_quantisation(scheme: str) -> None:
    """A direction projected out before quantising is still named, and a plain quantisation never is."""
    base = zoo.base(12)
    edited = zoo.project(base, 13, where=lambda name: zoo.is_writer(name) and "embed" not in name)
    diff = diff_weights(open_weights(one_file(base)), opened(quantised(edited, PACKERS[scheme])))
    kinds = {edit.kind for edit in diff.edits}
    assert {EditKind.QUANTIZED, EditKind.DIRECTIONAL_EDIT} <= kinds
