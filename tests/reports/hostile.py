"""A view in which every free text came from an attacker."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import replace

from reports.interface import Gap, ReleaseView, SiteView
from reports.tree import TreeDocument
from tests.reports import samples

PAYLOAD = (
    "\x1b[31m<script>window.pwned=1</script>\x1b[0m\u202e\u2066evil\u2069\u200b"
    '"><img src=x onerror="window.pwned=1">\' javascript:window.pwned=1 {{ 7*7 }} </title></style>\x00\x07'
)
HIDDEN = "\x1b\x00\x07\u202e\u2066\u2069\u200b"
KEPT = {"schema", "release", "scanned_at", "at", "first_seen", "gone_at", "generated_at", "version"}
"""Ours: they do not come from the Hub."""


def poisoned(value: object, salt: str = "") -> object:
    """The value with every free text replaced by the payload."""
    if not dataclasses.is_dataclass(value):
        return value
    hints = typing.get_type_hints(type(value))
    changed = {
        field.name: _poisoned(getattr(value, field.name), hints[field.name], f"{salt}.{field.name}")
        for field in dataclasses.fields(value)
        if field.name not in KEPT
    }
    return replace(value, **changed)


def _poisoned(value: object, hint: object, where: str) -> object:
    free = hint is str or (isinstance(hint, types.UnionType) and str in typing.get_args(hint))
    if isinstance(value, str):
        return PAYLOAD + where if free else value
    if isinstance(value, tuple):
        inner = (typing.get_args(hint) or (object,))[0]
        return tuple(_poisoned(item, inner, f"{where}.{index}") for index, item in enumerate(value))
    if isinstance(value, dict):
        return {PAYLOAD + key: [PAYLOAD] * 20 for key in value}
    return poisoned(value, where)


def view() -> SiteView:
    """The sample with poisoned forks, gaps and release, and a fork with an endless name."""
    sample = samples.lived()
    (release,) = sample.releases
    scans = tuple(poisoned(scan, str(index)) for index, scan in enumerate(release.scans))
    endless = replace(release.scans[0], repo="a" * 10_000, commit="b" * 10_000)
    gaps = (Gap(repo=PAYLOAD, reason=PAYLOAD), Gap(repo="c" * 10_000, reason="d" * 10_000))
    changes = tuple(
        replace(change, repo=scan.repo) for change, scan in zip(release.changes, scans, strict=False)
    )
    bad = ReleaseView(
        repo=PAYLOAD,
        commit=PAYLOAD,
        original=poisoned(release.original),
        license=PAYLOAD,
        scans=(*scans, endless),
        changes=changes,
        gaps=gaps,
        histories=tuple(
            replace(poisoned(history), repo=scan.repo)
            for history, scan in zip(release.histories, scans, strict=True)
        ),
        replaced=tuple(poisoned(former) for former in release.replaced),
        tree=_family(release.tree),
    )
    return replace(sample, releases=(bad,), contact=PAYLOAD)


def _family(tree: TreeDocument) -> TreeDocument:
    """A tree whose every name and statement is an attack."""
    names = {node.repo: f"{PAYLOAD}{number}" for number, node in enumerate(tree.nodes)}
    nodes = tuple(replace(node, repo=names[node.repo], channels=(PAYLOAD,)) for node in tree.nodes)
    edges = tuple(
        replace(edge, child=names[edge.child], base=names[edge.base], statement=PAYLOAD, channels=(PAYLOAD,))
        for edge in tree.edges
    )
    return replace(tree, nodes=nodes, edges=edges)
