"""The parameters of an edit in words, in one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reports.numbers import significant
from reports.render import shown
from reports.scan import EditView

_MOST = 8


def detail_words(edit: EditView) -> str:
    """E.g. `rank 1, strength 1 (1 = projected out), in down_proj, o_proj, layers 4–29`; empty without any."""
    return ", ".join(_parts(edit))


def _parts(edit: EditView) -> Iterator[str]:
    for name, value in edit.detail.items():
        match name, value:
            case "strength", float() | int():
                yield f"strength {significant(float(value))} (1 = projected out)"
            case "scale", float() | int():
                yield f"median relative change {significant(float(value))}"
            case "scheme", _:
                yield f"as {value}"
            case "modules", [*modules]:
                yield f"in {_listed([str(module) for module in modules])}"
            case "parents", [*parents]:
                yield f"with {'; '.join(shown(parent) for parent in parents)}"
            case "sources", [*sources]:
                yield source_words([source for source in sources if isinstance(source, int)])
            case _:
                yield f"{name} {shown(value, name)}"


def source_words(sources: Sequence[int]) -> str:
    """In the order in which the fork has them, as runs: `the original's layers 0–15, 8–23, 1 new`."""
    runs: list[tuple[int, int]] = []
    for source in sources:
        first, last = runs[-1] if runs else (0, -2)
        continues = (source == last + 1 and last >= 0) or (source < 0 and last < 0 and bool(runs))
        if continues:
            runs[-1] = (first, last + 1) if source >= 0 else (first - 1, last)
        else:
            runs.append((source, source))
    words = [
        f"{-first} new" if first < 0 else f"{first}" if first == last else f"{first}–{last}"
        for first, last in runs
    ]
    return f"the original's layers {_listed(words, 16)}"


def _listed(names: Sequence[str], most: int = _MOST) -> str:
    text = ", ".join(names[:most])
    return f"{text} and {len(names) - most} more" if len(names) > most else text
