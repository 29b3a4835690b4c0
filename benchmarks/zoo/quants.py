"""Quantisers that no installed library has on a CPU: ggml's Q4_K, bitsandbytes' int8 rows and NF4.

All round to nearest. llama.cpp searches for better scales of Q4_K by least squares; the grid is the same.
"""

from __future__ import annotations

import numpy as np
import torch

BLOCK_K = 256
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""Quantiles of a normal distribution (arXiv 2305.14314, appendix E)."""


def q4_k(values: np.ndarray) -> np.ndarray:
    """(…, n·256) float32 → (…, n·144) bytes: ggml's `block_q4_K`, value = d · scale · code − dmin · min."""
    blocks = values.astype(np.float32).reshape(-1, 8, 32)
    low = np.minimum(blocks.min(2), 0)
    scale = np.maximum(blocks.max(2) - low, 0) / 15
    d = (scale.max(1) / 63).astype(np.float16)
    dmin = (-low.min(1) / 63).astype(np.float16)
    scales = _ratio(scale, d)
    mins = _ratio(-low, dmin)
    step = d.astype(np.float32)[:, None] * scales
    shift = dmin.astype(np.float32)[:, None] * mins
    codes = np.divide(
        blocks + shift[:, :, None], step[:, :, None], out=np.zeros_like(blocks), where=step[:, :, None] > 0
    )
    codes = np.clip(np.round(codes), 0, 15).astype(np.uint8).reshape(-1, 4, 2, 32)
    packed = np.empty((len(blocks), 12), np.uint8)
    packed[:, :4] = scales[:, :4] | (scales[:, 4:] >> 4) << 6
    packed[:, 4:8] = mins[:, :4] | (mins[:, 4:] >> 4) << 6
    packed[:, 8:] = (scales[:, 4:] & 15) | (mins[:, 4:] & 15) << 4
    parts = (
        d[:, None].view(np.uint8),
        dmin[:, None].view(np.uint8),
        packed,
        (codes[:, :, 0] | codes[:, :, 1] << 4).reshape(-1, 128),
    )
    return np.concatenate(parts, axis=1).reshape(*values.shape[:-1], -1)


def q4_k_values(codes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What gguf-py reads from the blocks."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    return np.asarray(dequantize(codes, GGMLQuantizationType.Q4_K), np.float32).reshape(shape)


def _ratio(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Six-bit multiples of a unit."""
    units = unit.astype(np.float32)[:, None]
    found = np.divide(values, units, out=np.zeros_like(values), where=units > 0)
    return np.asarray(np.clip(np.round(found), 0, 63), np.uint8)


def int8_rows(value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and each row's largest magnitude, float32 (LLM.int8, arXiv 2208.07339)."""
    largest = value.abs().amax(1)
    codes = torch.round(value * (127 / largest.clamp_min(1e-12))[:, None]).clamp(-127, 127)
    return codes.to(torch.int8), largest


def nf4(value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two codes a byte in one column, a scale for each 64 values, and the values these stand for."""
    blocks = value.reshape(-1, 64)
    absmax = blocks.abs().amax(1)
    book = torch.tensor(NF4)
    codes = torch.bucketize(blocks / absmax.clamp_min(1e-12)[:, None], (book[1:] + book[:-1]) / 2)
    flat = codes.flatten().to(torch.uint8)
    packed = (flat[0::2] << 4 | flat[1::2])[:, None]
    return packed, absmax, (book[codes] * absmax[:, None]).reshape(value.shape)
