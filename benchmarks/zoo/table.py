"""Tables of the results: rates with intervals, who was taken for whom, errors that must not happen."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median

from benchmarks.zoo.judge import Outcome

TARGET_DELTA = 1e-3
LOSSLESS = frozenset({"own", "sharded", "bf16", "fp16", "fp32"})
REPRODUCIBLE = frozenset(
    {
        "identical",
        "repackaged",
        "dtype-cast",
        "quantized",
        "adapter",
        "low-rank-merge",
        "directional-edit",
        "merge",
        "layer-surgery",
        "vocabulary-change",
    }
)
"""Kinds that repeating the edit can prove."""
FALSE_LINEAGE_P = 1e-6


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    share, square = right / n, z * z / n
    centre = share + square / 2
    half = z * math.sqrt(share * (1 - share) / n + square / (4 * n))
    return max(0.0, (centre - half) / (1 + square)), min(1.0, (centre + half) / (1 + square))


def rate(right: int, n: int) -> str:
    """`97/100 = 97.0 % [91.5, 99.0]`."""
    low, high = wilson(right, n)
    return f"{right}/{n} = {100 * right / max(n, 1):.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def report(outcomes: Sequence[Outcome]) -> str:
    """Everything, for every depth."""
    depths = list(dict.fromkeys(outcome.depth for outcome in outcomes))
    return "\n\n".join(_depth(depth, [o for o in outcomes if o.depth == depth]) for depth in depths)


def _depth(depth: str, outcomes: Sequence[Outcome]) -> str:
    lines = [f"== {depth}: {len(outcomes)} pairs", "", "exact kind sets by what was made (Wilson 95 %)"]
    families = defaultdict(list)
    for outcome in outcomes:
        families[outcome.family].append(outcome)
    for family in sorted(families):
        members = families[family]
        lines.append(f"  {family:44} {rate(sum(o.exact for o in members), len(members))}")
    # an edit that has no size of its own (layers, tokens, containers) counts as large
    large = [o for o in outcomes if o.relative >= 0.99 * TARGET_DELTA or o.relative == 0]
    sized = [o for o in outcomes if o.relative >= 0.99 * TARGET_DELTA]
    lines += [
        "",
        f"all                                  {rate(sum(o.exact for o in outcomes), len(outcomes))}",
        f"relative delta ≥ 1e-3, or no size    {rate(sum(o.exact for o in large), len(large))}",
        f"relative delta ≥ 1e-3                {rate(sum(o.exact for o in sized), len(sized))}",
        "",
        *_by_container(outcomes),
        "",
        *_confusion(outcomes),
        "",
        *(_proofs(outcomes) if depth == "full" else ()),
        "",
        *_lineages(outcomes),
        "",
        *_errors(outcomes),
    ]
    return "\n".join(lines)


def _by_container(outcomes: Sequence[Outcome]) -> list[str]:
    groups = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.pair.rsplit("/", 1)[1]].append(outcome)
    models = defaultdict(list)
    for outcome in outcomes:
        models[outcome.pair.split("/", 1)[0]].append(outcome)
    lines = []
    for title, found in (("container", groups), ("model", models)):
        lines.append(f"by {title}")
        lines += [f"  {name:28} {rate(sum(o.exact for o in g), len(g))}" for name, g in sorted(found.items())]
    return lines


def _confusion(outcomes: Sequence[Outcome]) -> list[str]:
    """Expected kind set (what is right and nearest to what was said) against the one said, misses and all."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        counts[outcome.family][outcome.said] += 1
    lines = ["said, by what was made (an answer that is right for every such pair is marked =)"]
    for family, said in sorted(counts.items()):
        right = {o.said for o in outcomes if o.family == family and o.exact}
        wrong = {o.said for o in outcomes if o.family == family and not o.exact}
        cells = ", ".join(
            f"{'=' if name in right - wrong else '~' if name in right else ''}{name} ×{count}"
            for name, count in said.most_common()
        )
        lines.append(f"  {family:44} {cells}")
    return lines


def _proofs(outcomes: Sequence[Outcome]) -> list[str]:
    """How often what can be reproduced was: visible edits in float containers, and containers themselves."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for outcome in outcomes:
        lossless = outcome.pair.rsplit("/", 1)[1] in LOSSLESS
        kinds = outcome.right[0] if outcome.family == "same" else outcome.family
        if outcome.clear and (lossless or outcome.family == "same"):
            for kind in set(kinds.split("+")) & REPRODUCIBLE:
                counts[kind][0] += outcome.certainty.get(kind) == "proved"
                counts[kind][1] += 1
    lines = ["proved, of what can be reproduced"]
    return lines + [f"  {kind:28} {rate(proved, n)}" for kind, (proved, n) in sorted(counts.items())]


def _lineages(outcomes: Sequence[Outcome]) -> list[str]:
    """What was said of descent."""
    lines = ["lineage said"]
    groups = {"derived": True, "in disguise": None, "strangers": False}
    for title, related in groups.items():
        said = Counter(o.lineage for o in outcomes if o.related is related)
        lines.append(f"  {title:28} " + ", ".join(f"{status} ×{n}" for status, n in said.most_common()))
    return lines


def _errors(outcomes: Sequence[Outcome]) -> list[str]:
    benign = [o for o in outcomes if o.benign]
    innocent = [o for o in outcomes if "directional-edit" not in o.family]
    strangers = [o for o in outcomes if o.related is False]
    false = [o for o in strangers if o.lineage in {"proved", "consistent-with"}]
    sure = [o for o in strangers if o.p_value is not None and o.p_value < FALSE_LINEAGE_P and o in false]
    derived = [o for o in outcomes if o.related is not False]
    wrong = [o for o in outcomes if o.wrong_proofs]
    crashed = [o for o in outcomes if o.error]
    total = len(outcomes)
    lost = sum(o.lineage == "unrelated" for o in derived)
    counted = (
        ("directional calls on benign pairs", sum(o.directional for o in benign), len(benign)),
        ("directional calls where none was made", sum(o.directional for o in innocent), len(innocent)),
        ("false lineage", len(false), len(strangers)),
        ("false lineage at p < 1e-6", len(sure), len(strangers)),
        ("relatives called unrelated", lost, len(derived)),
        ("lineage right", sum(o.lineage_right for o in outcomes), total),
        ("wrong proofs", len(wrong), total),
        ("errors", len(crashed), total),
    )
    lines = [f"{what:38}{rate(count, n)}" for what, count, n in counted]
    seconds = [o.seconds for o in outcomes]
    lines.append(f"seconds a pair: median {median(seconds):.2f}, in all {sum(seconds):.0f}")
    lines.append(f"bytes read, both sides, over the fork's: median {median(o.share for o in outcomes):.3f}")
    lines += [f"  directional on benign: {o.line()}" for o in benign if o.directional]
    lines += [f"  false lineage: {o.line()}" for o in false]
    lines += [f"  wrong proof of {', '.join(o.wrong_proofs)}: {o.line()}" for o in wrong]
    lines += [f"  error: {o.depth} {o.seed} {o.pair}: {o.error}" for o in crashed]
    return lines
