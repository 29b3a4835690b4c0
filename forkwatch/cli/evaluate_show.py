"""What `forkwatch eval` prints for a person."""

from __future__ import annotations

from forkwatch.cli.output import data, table
from forkwatch.text import plain
from reports.evaluation import CheckView, EvaluationDocument, ProbeView, SpreadView
from reports.scan import NumberView, RateView, UnmeasuredView

_NAMES = {
    "refusal": "refuses harmful requests",
    "over_refusal": "refuses harmless look-alikes",
    "ungradeable": "not gradeable",
    "degenerate": "plain answers that loop",
    "choice": "multiple choice",
}


def show(document: EvaluationDocument) -> None:
    """A table, what changed, and which limits are missed."""
    against = f", against {document.original}" if document.original else ""
    data(plain(f"{document.model}{against}: {document.result.upper()}", 400))
    columns = ["", "model", *(["original"] if document.baseline else [])]
    rows = [
        [
            label,
            *(
                _number(getattr(behaviour, name))
                for behaviour in (document.behaviour, document.baseline)
                if behaviour is not None
            ),
        ]
        for name, label in _NAMES.items()
    ]
    table(f"{document.suite}, tier {document.tier}, judge {document.judge}", columns, rows)
    _show_stability(document)
    _show_change(document)
    _show_opinions(document)
    _show_tasks(document)
    _show_checks(document.checks)
    data(
        plain(f"  limits checked ({document.thresholds}): {len(document.checks)}; {document.seconds:.0f} s, ")
        + plain(f"{document.device}, {document.isolation}", 300)
    )


def _show_stability(document: EvaluationDocument) -> None:
    stability = document.behaviour.stability
    if isinstance(stability, UnmeasuredView) or not stability.samples:
        return
    flips = _number(stability.seed_flips)
    data(plain(f"  labels that change in {stability.samples} sampled answers: {flips}", 200))


def _show_checks(checks: tuple[CheckView, ...]) -> None:
    """A line for each limit missed, for each reason why some were not measured, and for all unsure ones."""
    for found in checks:
        if found.outcome == "missed":
            data(plain(f"  missed: {_check(found)}"))
    unmeasured: dict[str, list[CheckView]] = {}
    for found in checks:
        if isinstance(found.value, UnmeasuredView) and found.outcome == "unmeasured":
            unmeasured.setdefault(found.value.unmeasured, []).append(found)
    for reason, several in unmeasured.items():
        data(plain(f"  cannot be told, not measured: {_names(several)} ({reason})", 600))
    idle = [found for found in checks if found.outcome == "not-asked"]
    if idle:
        data(plain(f"  the suite asks nothing about: {_names(idle)}", 300))
    unsure = [found for found in checks if found.outcome == "met" and not found.surely]
    if unsure:
        data(plain(f"  met, but the interval reaches past the limit: {_names(unsure)}", 600))


def _names(checks: list[CheckView]) -> str:
    """Their names; several topics of one limit as their number."""
    topics = sum(":" in found.name for found in checks)
    names = [found.name for found in checks if topics == 1 or ":" not in found.name]
    return ", ".join([f"topic_refusal_min in {topics} topics", *names] if topics > 1 else names)


def _show_change(document: EvaluationDocument) -> None:
    change = document.comparison
    if change is None:
        return
    said = "undecided" if change.reason.startswith("undecided: ") else change.status
    reason = change.reason.removeprefix(f"{said}: ")
    data(plain(f"  safety {said}: {reason}", 400))
    if change.status == "not-measured" and isinstance(change.refusal_drop, UnmeasuredView):
        return  # all else would repeat the reason
    for label, number, form in (
        ("refusals lost", change.refusal_drop, ".0%"),
        ("KL per token", change.kl_per_token, ".3g"),
        ("perplexity ratio", change.perplexity_ratio, ".3g"),
        ("multiple choice lost", change.choice_drop, ".0%"),
    ):
        data(plain(f"  {label}: {_number(number, form)}", 200))
    for language in change.languages:
        p_value = "" if language.p_value is None else f", p = {language.p_value:.2g} over all languages"
        data(plain(f"  refusals lost in {language.name}: {_number(language.drop)}{p_value}", 200))
    if isinstance(change.topics, SpreadView):
        least, most = _number(change.topics.least), _number(change.topics.spread)
        data(plain(f"  over topics: every one lost at least {least}; the spread is {most}", 200))
    if isinstance(change.probe, ProbeView):
        data(plain(f"  refusal probe: moved by {_number(change.probe.shift, '.3g')} nats", 200))


def _show_opinions(document: EvaluationDocument) -> None:
    if document.ended:
        data(plain(f"  {document.ended}", 200))
    rows = [
        [found.judge, *map(_number, (found.refusal, found.over_refusal, found.ungradeable, found.agreement))]
        for found in document.opinions
    ]
    if rows:
        columns = ["judge", "refuses harmful", "refuses look-alikes", "not gradeable", "agrees"]
        table("second opinions", columns, rows)


def _show_tasks(document: EvaluationDocument) -> None:
    if not document.tasks:
        return
    columns = ["task", "metric", "model", *(["original", "lost"] if document.original else [])]
    rows = [
        [
            found.task,
            found.metric,
            _number(found.model, ".3g"),
            *([_number(found.original, ".3g"), _number(found.drop, ".3g")] if document.original else []),
        ]
        for found in document.tasks
    ]
    table("lm-evaluation-harness", columns, rows)


def _check(found: CheckView) -> str:
    sign = ">=" if "_min" in found.name else "<="
    return f"{found.name} {sign} {found.limit:g}, measured {_number(found.value, '.3g')}"


def _number(number: NumberView, form: str = ".0%") -> str:
    if not isinstance(number, RateView):
        return f"not measured ({number.unmeasured})"
    low, high = (format(bound, form) for bound in number.ci)
    return f"{format(number.rate, form)} (n = {number.n}, 95 % {low} to {high})"
