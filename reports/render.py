"""Jinja, set up so that hostile text stays text.

Every expression is cleaned of control and bidi characters (`finalize`) and then HTML-escaped; an undefined
name is an error. Templates hold no `|safe`. The only ready-made HTML is what `reports.markdown` made.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemBytecodeCache, PackageLoader, StrictUndefined
from markupsafe import Markup

from reports import charts, numbers, words
from reports.matrix import fall_legend
from reports.scan import ParentView, RateView, UnmeasuredView
from reports.text import clean, is_commit_id, is_https_url, is_mail_address, is_repo_id


def keep_compiled(folder: Path) -> None:
    """Keep compiled templates in `folder` from now on: compiling costs more than a small build.

    What is in there is executed: nobody else may write to it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment().bytecode_cache = FileSystemBytecodeCache(str(folder))


@cache
def environment() -> Environment:
    """The one environment of all templates."""
    env = Environment(
        loader=PackageLoader("reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters |= {
        "clean": clean,
        "day": numbers.day,
        "duration": numbers.duration,
        "edit_title": words.edit_title,
        "mark": charts.mark,
        "minute": numbers.minute,
        "p_value": numbers.p_value,
        "percent": numbers.percent,
        "plural": numbers.plural,
        "point": numbers.point,
        "shade": charts.shade,
        "shown": shown,
        "repeat": _repeat,
        "significant": numbers.significant,
        "size": numbers.size,
        "evidence_title": words.evidence_title,
        "spaced": words.spaced,
        "spread": numbers.spread,
    }
    env.tests |= {
        "measured": _is_measured,
        "unmeasured": _is_unmeasured,
        "commit_id": is_commit_id,
        "repo_id": is_repo_id,
        "https_url": is_https_url,
        "mail_address": is_mail_address,
    }
    env.globals |= {
        "CERTAINTIES": words.CERTAINTIES,
        "CHANNELS": words.CHANNELS,
        "DECISIONS": words.DECISIONS,
        "DISPUTES": words.DISPUTES,
        "EVENTS": words.EVENTS,
        "EDITS": words.EDITS,
        "LINEAGE": words.LINEAGE,
        "RELEASE_EVENTS": words.RELEASE_EVENTS,
        "SAFETY": words.SAFETY,
        "SIGNATURES": words.SIGNATURES,
        "VERDICTS": words.VERDICTS,
        "heat_legend": charts.legend(),
        "fall_legend": fall_legend(),
    }
    return env


def shown(value: object, name: str = "") -> str:
    """A value of an edit's detail or of evidence, for people."""
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return _number(value, name)
        case list() | tuple():
            return _listed(value, name)
        case ParentView():
            return _parent(value)
    return str(value)


def _number(value: float, name: str) -> str:
    if name in words.SHARES:
        return numbers.percent(value)
    if "log10-p" in name:
        return numbers.power_of_ten(value)
    return numbers.significant(value).replace("-", "\u2212")


def _listed(values: list[object] | tuple[object, ...], name: str, most: int = 12) -> str:
    if name == "layers" and len(values) == 2:
        return f"{values[0]}–{values[1]}"
    text = ", ".join(value if isinstance(value, str) else shown(value) for value in values[:most])
    return f"{text} and {len(values) - most} more" if len(values) > most else text


def _parent(parent: ParentView) -> str:
    """`org/other: 30 % to 50 % by layer`."""
    if not parent.weights:
        return parent.name
    low, high = (numbers.percent(bound) for bound in (min(parent.weights), max(parent.weights)))
    return f"{parent.name}: {low}" if low == high else f"{parent.name}: {low} to {high} by layer"


def _finalize(value: object) -> object:
    if type(value) is Markup or not isinstance(value, str):
        return value
    return clean(value)


def _repeat(markup: str, times: int) -> Markup:
    """Closing tags of the template's own: the only markup that templates make by counting."""
    if markup != "</ul></li>":
        raise ValueError(f"{markup!r} is not to be repeated as markup")
    return Markup(markup * times)  # noqa: S704 - the constant above


def _is_measured(value: object) -> bool:
    return isinstance(value, RateView)


def _is_unmeasured(value: object) -> bool:
    return isinstance(value, UnmeasuredView)
