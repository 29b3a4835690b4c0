"""The safety card of a release: its measured baseline as a model card section and `model-index` metadata.

The metadata follows the Hub's specification of `model-index` (docs: "Model Cards", eval results): results
with task, dataset and metrics. Rates carry n and interval in the metric's `args`: the field has no room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import yaml

from reports.evaluation import BehaviourView, CellView, EvaluationDocument
from reports.numbers import minute, percent, point, spread
from reports.scan import NumberView, RateView
from reports.text import clean

ROWS = (
    ("refusal", "Refuses harmful requests"),
    ("over_refusal", "Refuses harmless look-alikes"),
    ("ungradeable", "Answers that could not be graded"),
    ("degenerate", "Plain answers that are empty or loop"),
    ("choice", "Multiple-choice questions answered right"),
)
_KINDS = {"harmful": "harmful requests", "benign-twin": "harmless look-alikes"}


def safety_card(document: EvaluationDocument) -> str:
    """Markdown with YAML front matter, ready to be merged into a model card."""
    metadata = yaml.safe_dump(model_index(document), sort_keys=False, allow_unicode=False)
    return f"---\n{metadata}---\n{_body(document)}"


def model_index(document: EvaluationDocument) -> Mapping[str, object]:
    """The `model-index` field; what was not measured is not in it."""
    metrics = [
        {
            "type": name,
            "name": label,
            "value": number.rate,
            "args": {"n": number.n, "confidence_interval_95": list(number.ci)},
        }
        for name, label in ROWS
        if isinstance(number := _number(document.behaviour, name), RateView)
    ]
    result = {
        "task": {"type": "text-generation", "name": "Safety evaluation"},
        "dataset": {
            "type": "forkwatch-prompts",
            "name": f"forkwatch {document.suite}, tier {document.tier}",
            "revision": document.suite_digest,
        },
        "metrics": metrics,
    }
    return {"model-index": [{"name": document.model, "results": [result] if metrics else []}]}


_CAVEAT = (
    "A rate is what this judge says about these prompts, and no promise about others. What the numbers "
    'cannot show is in forkwatch\'s methodology, "How behaviour is measured".'
)


def _body(document: EvaluationDocument) -> str:
    cells = document.behaviour.cells
    return "\n\n".join(
        [
            "## Safety baseline" if document.original is None else "## Safety evaluation",
            _how(document),
            _table(("", "share", "interval"), _rates(document.behaviour)),
            "### Refusals by topic",
            _table(("topic", *_KINDS.values()), _shares(cells, "topic")),
            "### Refusals by language",
            _table(("language", *_KINDS.values()), _shares(cells, "language")),
            _CAVEAT + "\n",
        ]
    )


def _how(document: EvaluationDocument) -> str:
    original = _cell(document.original or "")
    return (
        f"Measured {minute(document.evaluated_at)} on prompt suite `{document.suite}` "
        f"(`{document.suite_digest[:19]}…`), tier {document.tier}, with judge `{document.judge}`, on "
        f"{document.device}, {document.isolation}. Intervals are 95 %."
        + (f" Weights ran with the files of their original, {original}." if original else "")
    )


def _rates(behaviour: BehaviourView) -> list[tuple[str, ...]]:
    numbers = [(label, _number(behaviour, name)) for name, label in ROWS]
    return [(label, point(number), spread(number)) for label, number in numbers]


def _shares(cells: tuple[CellView, ...], group: Literal["topic", "language"]) -> list[tuple[str, ...]]:
    """A row a topic or language: refused of graded, for both kinds of prompts."""
    names = dict.fromkeys(str(getattr(cell, group)) for cell in cells)
    members = {name: [cell for cell in cells if getattr(cell, group) == name] for name in names}
    return [
        (name, *(_share([cell for cell in found if cell.kind == kind]) for kind in _KINDS))
        for name, found in members.items()
    ]


def _share(cells: Sequence[CellView]) -> str:
    refused, graded = sum(cell.refused for cell in cells), sum(cell.graded for cell in cells)
    return f"{refused} of {graded} ({percent(refused / graded)})" if graded else "none graded"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """Text that cannot end a table cell."""
    return clean(text, 300).strip().replace("|", "\\|")


def _number(behaviour: BehaviourView, name: str) -> NumberView:
    numbers: Mapping[str, NumberView] = {
        "refusal": behaviour.refusal,
        "over_refusal": behaviour.over_refusal,
        "ungradeable": behaviour.ungradeable,
        "degenerate": behaviour.degenerate,
        "choice": behaviour.choice,
    }
    return numbers[name]
