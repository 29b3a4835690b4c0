"""Edits that keep the values: identical, repackaged, cast to another float type, quantised."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from detector.compare import Comparison
from detector.edits.context import Context
from detector.grid import K_GROUPS, error_over_model, half_step, is_float, usable
from detector.interface import Certainty, Edit, EditDetail, EditKind, Evidence, TensorStatus
from detector.pairing import Pair

if TYPE_CHECKING:
    import torch

NOISE_RATIO = 1.5
"""Squared error over what a scheme's steps predict, up to which quantisation alone explains it."""
NOISE_PROBES = 8
NOISE_ROWS = 64


def find_container(context: Context) -> tuple[Edit, ...]:
    """What happened to the file format and the number type. Empty if the types are the original's."""
    schemes = _elements_by_scheme(context.comparisons)
    if not schemes:
        return ()
    main = max(schemes, key=lambda scheme: (schemes[scheme], scheme))
    own = {c.pair.original.dtype for c in context.comparisons}
    quantised = {
        scheme: count for scheme, count in schemes.items() if not is_float(scheme) and scheme not in own
    }
    if quantised:
        return (_quantized(context, max(quantised, key=lambda scheme: (quantised[scheme], scheme))),)
    if any(_was_cast(c) for c in _matrices(context.comparisons)):
        return (_cast(context, main),)
    return _unchanged(context)


def _unchanged(context: Context) -> tuple[Edit, ...]:
    """Identical or repackaged: only when every tensor has its value and none came or went."""
    values = {TensorStatus.IDENTICAL, TensorStatus.CAST}
    if any(c.status not in values for c in context.comparisons):
        return ()
    pairing = context.pairing
    if pairing.added or pairing.missing or pairing.reshaped:
        return ()
    same_bytes = all(c.status is TensorStatus.IDENTICAL for c in context.comparisons)
    same_files = same_bytes and context.original.headers == context.fork.headers
    evidence = (
        Evidence("equal-tensors", len(context.comparisons), "all of them, value by value"),
        Evidence("files", len(context.fork.headers), f"the original has {len(context.original.headers)}"),
        Evidence("container", context.fork.format, f"the original's is {context.original.format}"),
    )
    kind = EditKind.IDENTICAL if same_files else EditKind.REPACKAGED
    return (Edit(kind, Certainty.PROVED, EditDetail(), evidence),)


def _cast(context: Context, scheme: str) -> Edit:
    matrices = list(_matrices(context.comparisons))
    exact = [c for c in matrices if c.status is TensorStatus.CAST]
    via = sorted({c.scheme for c in exact if c.scheme != c.pair.fork.dtype and c.scheme})
    evidence = [
        Evidence("exact-round-trips", len(exact), f"of {len(matrices)} matrices"),
        Evidence("original-dtype", matrices[0].pair.original.dtype),
    ]
    if via:
        evidence.append(Evidence("passed-through", ", ".join(via), "type that reproduces the values"))
    certainty = Certainty.PROVED if exact else Certainty.CONSISTENT
    return Edit(EditKind.DTYPE_CAST, certainty, EditDetail(scheme=via[0] if via else scheme), tuple(evidence))


def _quantized(context: Context, scheme: str) -> Edit:
    coded = [c for c in context.comparisons if not is_float(_scheme(c))]
    exact = [c for c in coded if c.status is TensorStatus.CAST]
    types = Counter(_scheme(c) for c in coded)
    error = math.sqrt(sum(c.relative_norm**2 for c in coded) / len(coded))
    evidence = [
        Evidence("recreated-tensors", len(exact), f"of {len(coded)}: quantising the original gives them"),
        Evidence("types", ", ".join(f"{count} {name}" for name, count in sorted(types.items()))),
        Evidence(
            "relative-error", round(error, 5), "of tensors not re-created; a smaller change would be hidden"
        ),
    ]
    ratio = noise_ratio(context)
    if ratio is not None:
        evidence.append(Evidence("error-over-model", round(ratio, 3), "squared error over the prediction"))
    certainty = Certainty.PROVED if exact else Certainty.CONSISTENT
    return Edit(EditKind.QUANTIZED, certainty, EditDetail(scheme=scheme), tuple(evidence))


def quantisation_hides_the_rest(context: Context, comparison: Comparison) -> bool:
    """A changed matrix in an encoding whose own error accounts for the difference.

    Q8_0 is always rounded to nearest, so its intervals are exact; the scales of all other types may have been
    searched, with data that we do not have, and only the size of the error can be judged.
    """
    pair = comparison.pair
    if is_float(pair.fork.dtype) or not pair.is_matrix:
        return False
    values, delta = _rows(context, pair)
    if pair.fork.dtype == "Q8_0":
        half = half_step(values, "Q8_0")
        return half is not None and (delta.abs() > half * 1.02).float().mean().item() < 1e-3
    ratio = error_over_model(values, delta, pair.fork.dtype)
    return ratio is None or ratio <= NOISE_RATIO


def noise_ratio(context: Context) -> float | None:
    """Squared error of tensors with searched scales over the prediction; None where there is no model."""
    pairs = [c.pair for c in context.changed_matrices() if c.pair.fork.dtype in K_GROUPS][:NOISE_PROBES]
    ratios = [error_over_model(*_rows(context, pair), pair.fork.dtype) for pair in pairs]
    known = sorted(ratio for ratio in ratios if ratio is not None)
    return known[len(known) // 2] if known else None


def _rows(context: Context, pair: Pair) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and changes of some whole rows: quantisation groups run along them."""
    first = pair.fork.shape[0] // 4
    values = usable(context.fork.band(pair.fork.name, first, NOISE_ROWS))
    return values, values - usable(context.original.band(pair.original.name, first, NOISE_ROWS))


def _scheme(comparison: Comparison) -> str:
    """Type the values are on the grid of: the one they passed through, else the stored one."""
    return comparison.scheme or comparison.pair.fork.dtype


def _was_cast(comparison: Comparison) -> bool:
    pair = comparison.pair
    passed = comparison.scheme not in {"", pair.original.dtype}
    return passed or pair.fork.dtype != pair.original.dtype


def _matrices(comparisons: Iterable[Comparison]) -> Iterable[Comparison]:
    return (c for c in comparisons if c.pair.is_matrix and c.status is not TensorStatus.UNREADABLE)


def _elements_by_scheme(comparisons: Iterable[Comparison]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for comparison in _matrices(comparisons):
        counts[_scheme(comparison)] += math.prod(comparison.pair.fork.shape)
    return counts
