"""Linear layers with their weights in the order in which the CPU multiplies.

torch orders a bfloat16 matrix anew for each product: more than half of the time where there are sixteen rows,
as in decoding, and a fifth at 64. `packed` does it once for many. The sums are the same, bit for bit: oneDNN
makes both. Importing this module imports torch; only the evaluation child does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from evals.memory import is_full

COPIES = 2 * 2**30
"""Bytes of ordered weights at most, which are held beside the model's own; other layers stay as they are."""


@contextmanager
def packed(model: torch.nn.Module) -> Iterator[None]:
    """Inside, the model computes with ordered copies of its weights as they are now: they must not change."""
    changed: list[torch.nn.Linear] = []
    try:
        with torch.inference_mode():
            for layer in _fitting(model):
                try:
                    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight)  # noqa: SLF001 - no public one
                except RuntimeError as error:
                    if not is_full(error):
                        raise
                    break
                layer.forward = partial(_product, weight, layer.bias)  # type: ignore[method-assign]
                changed.append(layer)
        yield
    finally:
        for layer in changed:
            del layer.forward


def _product(weight: torch.Tensor, bias: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")  # noqa: SLF001
    return found


def _fitting(model: torch.nn.Module) -> Iterator[torch.nn.Linear]:
    """The layers that can be ordered, in the model's order, up to `COPIES`."""
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or not torch.ops.mkldnn._is_mkldnn_bf16_supported():  # noqa: SLF001
        return
    held = 0
    for layer in model.modules():
        if type(layer) is not torch.nn.Linear:  # what else a subclass does is not known
            continue
        weight = layer.weight
        if weight.device.type == "cpu" and weight.dtype is torch.bfloat16:
            held += weight.nbytes
            if held > COPIES:
                return
            yield layer
