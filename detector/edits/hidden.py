"""Whether an edit hides under quantisation, and down to what size one is excluded.

For every quantised matrix that the other finders leave: (1) repeat the quantiser on the original where it can
be repeated (`coded.load_coded`); codes that differ are an edit's, whatever their number. (2) Compare the
spectrum with random signs, and pool over matrices: without an edit the real top singular value is the
largest of five with chance 1/5 in each. (3) Name the kind only if its size leaves no other: spikes that
account for the whole change are a low rank; no spike, where a rank up to 16 of that size would show, is
dense. Anything else is `unknown`, and the quantised edit says how small a change could stay unseen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median_low
from typing import TYPE_CHECKING

from detector.compare import Comparison
from detector.edits.coded import FLIPS, Coded, Spikes, load_coded, spikes
from detector.edits.container import NOISE_RATIO, quantisation_hides_the_rest
from detector.edits.context import Context, layer_range, module_names
from detector.edits.low_rank import LowRankFinding
from detector.errors import UnreadableTensorError
from detector.grid import K_GROUPS, error_over_model, is_float
from detector.interface import Certainty, Edit, EditDetail, EditKind, Evidence
from detector.neurons import log10_binomial_tail
from detector.singular import leading_vectors

if TYPE_CHECKING:
    import torch

MATRICES = 24
"""Matrices looked at, spread over modules and layers: enough for p = 5^-24."""
LOG10_P = -3.0
SPIKED = 1.08
"""Median of first singular value over the noise edge: rounding has structure of its own, some per cent of the
edge, which a pooled test of many matrices would call significant."""
AGREEMENT = 0.7
"""Share of matrices with the same number of spikes: an adapter has one rank, a training run has none."""
SAME_CODES = 1e-3
"""Share of codes that another implementation of a quantiser may set otherwise: ties and last bits."""
ACCOUNTED = 0.7
"""Share of a change's squared norm that spikes must stand for to be all of it."""
ADAPTER_RANK = 16
"""A dense change is named only where a change of the same size and this rank would have shown."""


@dataclass(frozen=True, slots=True)
class HiddenFinding:
    """An edit under the quantisation, the matrices it accounts for, and facts for the quantised edit."""

    edit: Edit | None = None
    explained: frozenset[str] = frozenset()
    dense: frozenset[str] = frozenset()
    """Matrices with a change that has no small rank: a fine-tune, for `find_dense` to name."""
    facts: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class _Look:
    """One matrix looked at."""

    coded: Coded
    spikes: Spikes

    @property
    def total(self) -> float:
        """‖Δ‖² / ‖W‖² of a Gaussian change; the mean size of code differences is the mean of |Δ|."""
        delta = self.coded.delta
        mean = delta.abs().mean().item()
        return math.pi / 2 * mean**2 * delta.numel() / max(self.coded.weights.square().sum().item(), 1e-30)


def find_hidden(context: Context, low_rank: LowRankFinding, explained: frozenset[str]) -> HiddenFinding:
    """Look under the quantisation of the matrices that nothing else explains."""
    rest = [
        c
        for c in (*low_rank.dense, *low_rank.undecided)
        if not is_float(c.pair.fork.dtype) and c.pair.name not in explained
    ]
    hidden = [c for c in rest if quantisation_hides_the_rest(context, c)]
    visible = [c for c in rest if c not in hidden and c.pair.fork.dtype in K_GROUPS]
    looks = list(_looks(context, hidden))
    exact = [look for look in looks if look.coded.exact]
    found = HiddenFinding()
    if len(visible) >= len(hidden):
        found = _by_size(visible, list(_looks(context, visible)))
    elif looks:
        codes = len(exact) > len(looks) / 2
        found = _by_codes(hidden, exact) if codes else _by_spectrum(hidden, looks)
    if low_rank.edit is not None and found.edit is not None:
        return HiddenFinding(explained=found.explained, facts=found.facts)
    return found


def _looks(context: Context, comparisons: list[Comparison]) -> Iterable[_Look]:
    ordered = sorted(comparisons, key=lambda c: (c.pair.module, c.pair.layer or 0, c.pair.name))
    count = min(MATRICES, len(ordered))
    for index in range(count):
        try:
            coded = load_coded(context, ordered[index * (len(ordered) - 1) // max(count - 1, 1)].pair)
        except UnreadableTensorError:
            continue
        if coded.delta.any():
            yield _Look(coded, spikes(coded, seed=index))


def _is_spiked(looks: list[_Look]) -> bool:
    p_value = log10_binomial_tail(sum(look.spikes.is_extreme for look in looks), len(looks), 1 / (1 + FLIPS))
    return p_value <= LOG10_P and median_low(look.spikes.largest for look in looks) >= SPIKED


def _by_codes(hidden: list[Comparison], looks: list[_Look]) -> HiddenFinding:
    """Judge by the codes that differ from the original's own."""
    differing = median_low(look.coded.differing for look in looks)
    note = "median share, against the original quantised alike"
    facts = (*_facts(looks), Evidence("differing-codes", round(differing, 5), note))
    if differing <= SAME_CODES:
        return HiddenFinding(facts=facts)
    total = median_low(look.total for look in looks)
    size = Evidence("hidden-relative-norm", round(math.sqrt(total), 5), "median ‖Δ‖ / ‖W‖, from the codes")
    accounted = median_low(look.spikes.share / max(look.total, 1e-30) for look in looks)
    if _is_spiked(looks) and accounted >= ACCOUNTED and (rank := _rank(looks)) is not None:
        return HiddenFinding(_low_rank(rank, hidden, (*facts, size)), _names(hidden), facts=facts)
    if not _is_spiked(looks) and _would_show(total, looks):
        return HiddenFinding(dense=_names(hidden), facts=(*facts, size))
    return HiddenFinding(_unknown(hidden, (*facts, size)), _names(hidden), facts=facts)


def _by_spectrum(hidden: list[Comparison], looks: list[_Look]) -> HiddenFinding:
    """Judge by the spectrum of a rounding error no larger than its scheme's."""
    facts = _facts(looks)
    if not _is_spiked(looks):
        return HiddenFinding(facts=facts)
    if (rank := _agreed_rank(looks)) is not None:
        return HiddenFinding(_low_rank(rank, hidden, facts), _names(hidden), facts=facts)
    return HiddenFinding(_unknown(hidden, facts), _names(hidden), facts=facts)


def _by_size(visible: list[Comparison], looks: list[_Look]) -> HiddenFinding:
    """Errors larger than the scheme's: a low rank's, if the scheme's own are left without the spikes."""
    before, after, excess = list[float](), list[float](), list[float]()
    for look in looks:
        delta, values = look.coded.delta, look.coded.values
        ratio = error_over_model(values, delta, look.coded.pair.fork.dtype)
        deflated = _without_spikes(delta, max(look.spikes.count, 1))
        rest = error_over_model(values, deflated, look.coded.pair.fork.dtype)
        if ratio is None or rest is None:
            continue
        before.append(ratio)
        after.append(rest)
        norm = look.coded.weights.square().sum().item()
        excess.append((1 - 1 / ratio) * delta.square().sum().item() / max(norm, 1e-30))
    if not before:
        return HiddenFinding()
    note = "squared error; with the spikes taken out, the second"
    ratios = f"{median_low(before):.3f}, {median_low(after):.3f}"
    facts = (*_facts(looks), Evidence("error-over-model", ratios, note))
    if _is_spiked(looks) and median_low(after) <= NOISE_RATIO and (rank := _rank(looks)) is not None:
        return HiddenFinding(_low_rank(rank, visible, facts), _names(visible))
    left = (median_low(after) - 1) / max(median_low(before) - 1, 1e-30)
    if left > 0.5 and median_low(after) > NOISE_RATIO and _would_show(median_low(excess), looks):
        return HiddenFinding(dense=_names(visible))
    return HiddenFinding()


def _without_spikes(delta: torch.Tensor, count: int) -> torch.Tensor:
    import torch

    vectors = torch.from_numpy(leading_vectors(delta.numpy(), count)[0])
    return delta - vectors @ (vectors.T @ delta)


def _rank(looks: list[_Look]) -> int | None:
    """Median number of spikes, if it is small against the matrices."""
    count = median_low(look.spikes.count for look in looks)
    return count if 0 < 8 * count <= min(min(look.coded.delta.shape) for look in looks) else None


def _agreed_rank(looks: list[_Look]) -> int | None:
    count = _rank(looks)
    agreed = sum(look.spikes.count == count for look in looks)
    return count if agreed >= AGREEMENT * len(looks) else None


def _would_show(total: float, looks: list[_Look]) -> bool:
    """A change of this squared norm and of the rank of an adapter would have made spikes."""
    return total / ADAPTER_RANK > SPIKED**2 * median_low(look.spikes.visible for look in looks)


def _facts(looks: list[_Look]) -> tuple[Evidence, ...]:
    extreme = sum(look.spikes.is_extreme for look in looks)
    p_value = log10_binomial_tail(extreme, len(looks), 1 / (1 + FLIPS))
    return (
        Evidence("spiked-matrices", extreme, f"of {len(looks)}; by chance one in {1 + FLIPS}"),
        Evidence("spike-log10-p-value", round(p_value, 1), "binomial, over the matrices"),
        Evidence(
            "spike-over-noise",
            round(median_low(look.spikes.largest for look in looks), 3),
            "median first singular value over that of the same values with random signs",
        ),
        Evidence(
            "invisible-below",
            round(math.sqrt(median_low(look.spikes.visible for look in looks)), 5),
            "‖Δ‖ / ‖W‖ of a change of rank one that would stay unseen in a matrix; √r times it for rank r",
        ),
    )


def _low_rank(rank: int, hidden: list[Comparison], evidence: tuple[Evidence, ...]) -> Edit:
    pairs = [c.pair for c in hidden]
    detail = EditDetail(rank=rank, modules=module_names(pairs), layers=layer_range(pairs))
    return Edit(EditKind.LOW_RANK_MERGE, Certainty.CONSISTENT, detail, evidence)


def _unknown(hidden: list[Comparison], evidence: tuple[Evidence, ...]) -> Edit:
    pairs = [c.pair for c in hidden]
    note = "something was changed before quantisation; a low rank cannot be told from a dense change"
    detail = EditDetail(modules=module_names(pairs), layers=layer_range(pairs))
    undecided = Evidence("undecided-matrices", len(hidden), note)
    return Edit(EditKind.UNKNOWN, Certainty.UNKNOWN, detail, (undecided, *evidence))


def _names(comparisons: list[Comparison]) -> frozenset[str]:
    return frozenset(c.pair.name for c in comparisons)
