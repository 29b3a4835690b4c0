"""Merges: the change follows from the changes of other models, as far as such models are known.

(1) Of the known models, those whose change from the original correlates with the fork's beyond what the same
models give with their rows in another order; Bonferroni over all of them. (2) The formula of a merge is
fitted, layer by layer. (3) It is a merge only if the stored values follow to rounding. A fine-tune of the
parent, a later checkpoint or a sibling correlates as much as a merge does and fails (3); that is evidence.
With bands of the parents only, the merge is suggested; with their full weights it is proved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median_low

from detector.edits.context import Context, layer_range, module_names
from detector.edits.mixture import NEARLY, Fit, fit_parents
from detector.edits.partners import Case, Cell, bands_case, pooled_shares, select, weights_case
from detector.interface import Certainty, Edit, EditDetail, EditKind, Evidence, Parent

PROVED_SHARE = 0.9
"""Share of the changed matrices that must follow from the parents for the merge to account for the fork."""
MIN_SHARE = 0.5
"""Share from which the merge is named, and something else besides."""
UNFOLLOWED = "correlated beyond chance; the values do not follow, so that no merge is claimed"
SAME = 0.02
"""A parent's share this near to 1 (0) in every layer is the parent itself (is none)."""


@dataclass(frozen=True, slots=True)
class MergeFinding:
    """The edit, if there is one, and the matrices it accounts for."""

    edit: Edit | None = None
    explained: frozenset[str] = frozenset()
    """Names of matrices."""
    hints: tuple[Evidence, ...] = ()
    """Known models that the change has something to do with, though it is no merge of them."""


def find_merge(context: Context) -> MergeFinding:
    """Look for the other parents among the models at hand, full weights first; nothing if there are none.

    Raises:
        CrawlerError: bytes of a parent could not be had.
    """
    found = MergeFinding()
    if context.relatives.parents and context.changed_matrices():
        found = _judge(context, weights_case(context), Certainty.PROVED)
    if found.edit is None and context.relatives.known and context.relatives.bands is not None:
        suggested = _judge(context, bands_case(context), Certainty.CONSISTENT)
        if suggested.edit is not None or not found.hints:
            found = suggested
    return found


@dataclass(frozen=True, slots=True)
class _Fitted:
    """One matrix with the fit of its change; no fit where too few values moved to tell."""

    name: str
    layer: int | None
    fit: Fit | None
    weights: tuple[float, ...]
    differs: tuple[bool, ...]
    """Which parents differ from the original here; the share of one that does not could be anything."""


def _judge(context: Context, case: Case, best: Certainty) -> MergeFinding:
    scores = select(case)
    names = list(scores)
    tried = _fit(case, names, case.probes)
    if not any(one.fit is not None and one.fit.holds for one in tried):
        return MergeFinding(hints=tuple(Evidence("shares-change-with", name, UNFOLLOWED) for name in names))
    fitted = _fit(case, names, case.cells())
    used = [index for index in range(len(names)) if any(abs(one.weights[index]) > SAME for one in fitted)]
    if names and 0 < len(used) < len(names):
        names = [names[index] for index in used]
        fitted = _fit(case, names, case.cells())
    decided = [(one, one.fit) for one in fitted if one.fit is not None]
    if not names or not decided:
        return MergeFinding()
    holding = [(one, fit) for one, fit in decided if fit.holds]
    share = len(holding) / len(decided)
    whole = best is Certainty.PROVED
    if len(names) == 1 and share >= MIN_SHARE and all(abs(one.weights[0] - 1) <= SAME for one, _ in decided):
        return MergeFinding(
            hints=(Evidence("follows-known-model", names[0], "its values, not the original's"),)
        )
    if share < MIN_SHARE:
        return MergeFinding(hints=tuple(Evidence("shares-change-with", name, UNFOLLOWED) for name in names))
    certainty = best if share >= PROVED_SHARE else Certainty.CONSISTENT
    explained = _explained(context, decided, whole=whole)
    pairs = [c.pair for c in context.changed_matrices() if c.pair.name in explained]
    detail = EditDetail(
        modules=module_names(pairs), layers=layer_range(pairs), parents=_parents(names, fitted)
    )
    evidence = _evidence([fit for _, fit in holding], len(decided), whole=whole)
    sigmas = tuple(
        Evidence(
            "parent-sigmas", round(scores[name], 1), f"correlation with {name}, in standard errors of chance"
        )
        for name in names
    )
    edit = Edit(EditKind.MERGE, certainty, detail, (*evidence, *sigmas))
    return MergeFinding(edit, explained)


def _explained(context: Context, decided: list[tuple[_Fitted, Fit]], *, whole: bool) -> frozenset[str]:
    """Changed matrices that the merge accounts for.

    If nearly all follow, so do those too small or too coarse to tell; otherwise those that follow for the
    larger part, or those of the layers that rows were fitted of.
    """
    holding = [one for one, fit in decided if fit.holds]
    changed = context.changed_matrices()
    if len(holding) >= PROVED_SHARE * len(decided):
        refuted = {one.name for one, fit in decided if not fit.holds and fit.reproduced < NEARLY}
        return frozenset(c.pair.name for c in changed) - refuted
    if whole:
        return frozenset(one.name for one, fit in decided if fit.nearly)
    layers = {one.layer for one in holding}
    return frozenset(c.pair.name for c in changed if c.pair.layer in layers)


def _fit(case: Case, names: list[str], cells: Iterable[Cell]) -> list[_Fitted]:
    if not names:
        return []
    parents = {name: case.open(name) for name in names}
    stated = tuple(round(share, 2) for share in pooled_shares(case, parents))
    fitted = []
    for cell in cells:
        deltas = [parents[name](cell) for name in names]
        known = [delta for delta in deltas if delta is not None]
        if len(known) < len(deltas) or not cell.moved():
            continue
        fit = fit_parents(cell.target, known, stated)
        weights = fit.weights if fit else (0.0,) * len(names)
        differs = tuple(bool(delta.any()) for delta in known)
        fitted.append(_Fitted(cell.name, cell.layer, fit, weights, differs))
    return fitted


def _parents(names: list[str], fitted: list[_Fitted]) -> tuple[Parent, ...]:
    """Median share by layer, over the matrices in which the parent differs; 0 where it differs in none."""
    layers = sorted({one.layer for one in fitted if one.layer is not None})

    def share(index: int, layer: int) -> float:
        own = [one.weights[index] for one in fitted if one.layer == layer and one.differs[index]]
        return median_low(own or [0.0])

    return tuple(
        Parent(name, tuple(share(index, layer) for layer in layers)) for index, name in enumerate(names)
    )


def _evidence(fits: list[Fit], decided: int, *, whole: bool) -> tuple[Evidence, ...]:
    formulas = Counter(fit.formula for fit in fits)
    return (
        Evidence(
            "reproduced-matrices",
            len(fits),
            f"of {decided} changed ones"
            if whole
            else f"of {decided} sampled, a few rows of one in each layer",
        ),
        Evidence(
            "reproduced-fraction",
            round(median_low(fit.reproduced for fit in fits), 3),
            "median share of moved values that follow from the parents",
        ),
        Evidence(
            "reproduced-by-chance",
            round(median_low(fit.chance for fit in fits), 4),
            "the same with the parents' rows in another order",
        ),
        Evidence(
            "residual-over-rounding",
            round(median_low(fit.floor_ratio for fit in fits), 3),
            "squared residual over one rounding's",
        ),
        Evidence("rounding-steps", max(fit.roundings for fit in fits), "roundings allowed for"),
        Evidence(
            "formula",
            formulas.most_common(1)[0][0],
            "linear, stated (two decimals), spherical (SLERP) or sparse (TIES, DARE)",
        ),
        Evidence(
            "density", round(median_low(fit.density for fit in fits), 3), "share of values with a parent's"
        ),
    )
