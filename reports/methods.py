"""The methodology as pages of the site: copies of docs/methodology, which an installation does not have.

`python docs/generate.py` writes the copies; a test keeps them current.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from reports.context import Site, Values
from reports.plan import Entry, digest
from reports.routes import relative

FOLDER = Path(__file__).parent / "methodology"
_ORDER = (
    "discovery",
    "provenance",
    "weights",
    "evals",
    "judge",
    "screening",
    "effort",
    "isolation",
    "outputs",
)
"""As they are read; others follow by name."""


@dataclass(frozen=True, slots=True)
class MethodDoc:
    """One page."""

    name: str
    """Of the file, without `.md`."""
    title: str
    markdown: str

    @property
    def path(self) -> str:
        """Relative to the site's root."""
        return f"methodology/{self.name}.html"


@cache
def methods() -> tuple[MethodDoc, ...]:
    """The overview with the limits, then the rest."""
    found = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    order = [name for name in ("index", *_ORDER) if name in found]
    order += sorted(set(found) - set(order))
    return tuple(MethodDoc(name, _title(name, found[name]), found[name]) for name in order)


def _title(name: str, text: str) -> str:
    first = text.partition("\n")[0]
    return first.removeprefix("# ").strip() if first.startswith("# ") else name.replace("-", " ").capitalize()


def method_pages(site: Site) -> Iterator[Entry]:
    """One page for each."""
    every = methods()
    for method in every:
        key = digest(method, [(other.path, other.title) for other in every])
        yield site.page("method.html", method.path, key, partial(_values, method))


def _values(method: MethodDoc) -> Values:
    from reports import markdown  # as in `reports.pages`

    known = {other.name: other for other in methods()}
    body = markdown.to_html(method.markdown, known, lambda name: relative(method.path, known[name].path))
    return {"method": method, "methods": methods(), "body": body}
