"""Packers of quantised layouts, written from their descriptions one code at a time; no reader is used."""

from __future__ import annotations

import json

import torch
from safetensors.torch import save

from detector.formats import open_weights
from detector.formats.safetensors import SafetensorsReader
from tests.detector.zoo import MemoryFile

Tensors = dict[str, torch.Tensor]
AWQ_FIELDS = (0, 2, 4, 6, 1, 3, 5, 7)


def opened(tensors: Tensors, config: object = None) -> SafetensorsReader:
    """A reader of these stored tensors, with a `config.json` beside them if there is one."""
    files = {"model.safetensors": MemoryFile(save(tensors))}
    if config is not None:
        files["config.json"] = MemoryFile(json.dumps(config).encode())
    reader = open_weights(files)
    assert isinstance(reader, SafetensorsReader)
    return reader


def codes_of(shape: tuple[int, ...], bits: int, seed: int = 0) -> torch.Tensor:
    """Random codes, int64."""
    return torch.randint(0, 1 << bits, shape, generator=torch.Generator().manual_seed(seed))


def scales_of(shape: tuple[int, ...], seed: int = 1) -> torch.Tensor:
    """Random positive scales that fp16 holds."""
    generator = torch.Generator().manual_seed(seed)
    return (0.01 + 0.01 * torch.rand(shape, generator=generator)).half()


def words_along_rows(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """(n, m) codes → (n·bits/32, m) int32: column by column, code k at bits k·bits of one long integer."""
    columns = []
    for column in codes.T.tolist():
        stream = 0
        for index, code in enumerate(column):
            stream |= code << (index * bits)
        words = [(stream >> (32 * word)) & 0xFFFFFFFF for word in range(len(column) * bits // 32)]
        columns.append([word - (1 << 32) if word >> 31 else word for word in words])
    return torch.tensor(columns, dtype=torch.int64).T.to(torch.int32).contiguous()


def words_along_columns(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """(n, m) codes → (n, m·bits/32) int32."""
    return words_along_rows(codes.T, bits).T.contiguous()


def awq_words(codes: torch.Tensor) -> torch.Tensor:
    """(n, m) four-bit codes → (n, m/8) int32 in AWQ's field order."""
    rows = []
    for row in codes.tolist():
        words = []
        for start in range(0, len(row), 8):
            word = 0
            for field, output in enumerate(AWQ_FIELDS):
                word |= row[start + output] << (4 * field)
            words.append(word - (1 << 32) if word >> 31 else word)
        rows.append(words)
    return torch.tensor(rows, dtype=torch.int64).to(torch.int32)


def gptq(
    stem: str,
    codes: torch.Tensor,
    zeros: torch.Tensor,
    scales: torch.Tensor,
    *,
    bits: int = 4,
    version: int = 1,
    order: torch.Tensor | None = None,
) -> Tensors:
    """GPTQ parts of (in, out) codes with (groups, out) zeros and scales."""
    stored = (zeros - 1) % (1 << bits) if version == 1 else zeros
    parts = {
        f"{stem}.qweight": words_along_rows(codes, bits),
        f"{stem}.qzeros": words_along_columns(stored, bits),
        f"{stem}.scales": scales,
    }
    return parts if order is None else parts | {f"{stem}.g_idx": order.to(torch.int32)}


def awq(stem: str, codes: torch.Tensor, zeros: torch.Tensor, scales: torch.Tensor) -> Tensors:
    """AWQ parts of (in, out) codes with (groups, out) zeros and scales."""
    return {
        f"{stem}.qweight": awq_words(codes),
        f"{stem}.qzeros": awq_words(zeros),
        f"{stem}.scales": scales,
    }


def mlx(stem: str, codes: torch.Tensor, scales: torch.Tensor, biases: torch.Tensor, bits: int = 4) -> Tensors:
    """MLX parts of (…, out, in) codes with (…, out, groups) scales and biases."""
    flat = words_along_columns(codes.reshape(-1, codes.shape[-1]), bits)
    return {
        f"{stem}.weight": flat.view(torch.uint32).reshape(*codes.shape[:-1], -1),
        f"{stem}.scales": scales,
        f"{stem}.biases": biases,
    }


def hqq(
    stem: str,
    codes: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor,
    bits: int,
    group: int,
    axis: int,
) -> Tensors:
    """HQQ parts of (out, in) codes, a scale and a zero for each group."""
    grouped = codes.reshape((-1, group) if axis else (group, -1)).tolist()
    slots = {8: 1, 4: 2, 3: 10, 2: 4, 1: 8}[bits]
    height, width = -(-len(grouped) // slots), len(grouped[0])
    packed = [[0] * width for _ in range(height)]
    for index, row in enumerate(grouped):
        for column, code in enumerate(row):
            packed[index % height][column] |= code << (bits * (slots - 1 - index // height))
    numbers = {"nbits": bits, "group_size": group, "axis": axis}
    return {
        f"{stem}.W_q": torch.tensor(packed, dtype=torch.int32 if bits == 3 else torch.uint8),
        f"{stem}.scale": scales.reshape((-1, 1) if axis else (1, -1)),
        f"{stem}.zero": zeros.reshape((-1, 1) if axis else (1, -1)),
        f"{stem}.shape": torch.tensor(codes.shape),
        f"{stem}.view_as_float": torch.tensor(0, dtype=torch.uint8),
        **{f"{stem}.{name}": torch.tensor(value, dtype=torch.int32) for name, value in numbers.items()},
    }


def bnb4(
    name: str,
    codes: torch.Tensor,
    absmax: torch.Tensor,
    *,
    code: str = "nf4",
    block: int = 64,
    **state: object,
) -> Tensors:
    """bitsandbytes parts of a tensor of four-bit codes: the first of two in the high half of a byte."""
    flat = codes.flatten().tolist()
    octets = [
        flat[index] << 4 | (flat[index + 1] if index + 1 < len(flat) else 0)
        for index in range(0, len(flat), 2)
    ]
    described = {
        "quant_type": code,
        "blocksize": block,
        "dtype": "bfloat16",
        "shape": list(codes.shape),
    } | state
    text = json.dumps(described).encode()
    return {
        name: torch.tensor(octets, dtype=torch.uint8)[:, None],
        f"{name}.absmax": absmax,
        f"{name}.quant_state.bitsandbytes__{code}": torch.tensor(list(text), dtype=torch.uint8),
    }
