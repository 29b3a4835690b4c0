"""The family of a release as a page: a nested list, in which a fork with very many children is cut short."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reports.context import Release, Values
from reports.exports import names
from reports.plan import Entry, digest, digest_of
from reports.scan import VerdictLabel
from reports.tree import Branch, TreeDocument, branches
from reports.words import VERDICTS

SIBLINGS = 50
"""Children of one node that are listed; of the rest there is a count by verdict."""
MOST = 300
"""Lines of the page; the whole is in its JSON."""
DEEPEST = 8
"""Deeper descendants stand at this depth, so that a chain of claims cannot push names off the page."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the tree, and how the list nests before it."""

    depth: int
    branch: Branch | None
    """None: a count of siblings that are not listed."""
    hidden: tuple[tuple[VerdictLabel | None, int], ...] = ()
    """Verdicts of those; None counts the ones without."""

    @property
    def proved(self) -> bool:
        """The weights show the descent that the line stands for."""
        return self.branch is not None and any(edge.kind == "proved" for edge in self.branch.edges)


@dataclass(frozen=True, slots=True)
class Family:
    """The page's tree."""

    lines: tuple[Line, ...]
    hidden: int
    """Lines that the page leaves out altogether."""
    proved: int
    claimed: int
    """Edges that are only claimed."""
    outside: int
    """Bases that are named and do not belong to the family."""


def family_path(release: Release) -> str:
    """Where the page is."""
    return posixpath.dirname(release.site.routes.release(release.view)) + "/family.html"


def family_pages(release: Release) -> Iterator[Entry]:
    """The page, where there is a tree."""
    tree = release.view.tree
    if tree is not None:
        own = [(fork.row.repo, fork.path) for fork in release.forks]
        key = digest(release.facts_key, release.tree_key, digest_of((own,)))
        yield release.site.page("family.html", family_path(release), key, lambda: _values(release, tree))


def _values(release: Release, tree: TreeDocument) -> Values:
    return {
        "release": release.view,
        "tree": tree,
        "family": family(tree),
        "counts": verdict_counts(tree),
        "json": release.site.routes.tree(release.view),
        "graph": names.of_release(release.site.routes.release(release.view), "tree.graphml"),
    }


def verdict_counts(tree: TreeDocument) -> tuple[tuple[VerdictLabel, int, int], ...]:
    """Of each verdict: own ones, and inferred ones."""
    own = {count.label: count.count for count in tree.verdicts}
    inferred = {count.label: count.count for count in tree.inferred}
    return tuple(
        (label, own.get(label, 0), inferred.get(label, 0))
        for label in VERDICTS
        if label in own or label in inferred
    )


def family(tree: TreeDocument) -> Family:
    """Lay the tree out."""
    lines = list(_cut(branches(tree)))
    pairs = {(edge.child, edge.base, edge.kind) for edge in tree.edges}
    proved = {(child, base) for child, base, kind in pairs if kind == "proved"}
    claimed = {(child, base) for child, base, kind in pairs if kind == "claimed"}
    return Family(
        lines=tuple(lines[:MOST]),
        hidden=max(0, len(lines) - MOST),
        proved=len(proved),
        claimed=len(claimed - proved),
        outside=sum(node.role == "outside" for node in tree.nodes),
    )


def _cut(every: Sequence[Branch]) -> Iterator[Line]:
    """Lines, with the 51st and later children of a node, and all below them, counted instead of listed."""
    seen: list[int] = [0]
    left: list[Counter[VerdictLabel | None]] = [Counter()]
    skipping: int | None = None
    for branch in every:
        if skipping is not None and branch.depth > skipping:
            left[skipping][_label(branch)] += 1
            continue
        skipping = None
        while len(seen) > branch.depth + 1:
            seen.pop()
            yield from _counted(len(seen), left.pop())
        while len(seen) < branch.depth + 1:
            seen.append(0)
            left.append(Counter())
        seen[branch.depth] += 1
        if branch.depth and seen[branch.depth] > SIBLINGS:
            left[branch.depth][_label(branch)] += 1
            skipping = branch.depth
            continue
        yield Line(min(branch.depth, DEEPEST), branch)
    while seen:
        seen.pop()
        yield from _counted(len(seen), left.pop())


def _counted(depth: int, left: Counter[VerdictLabel | None]) -> Iterator[Line]:
    if left:
        order: list[VerdictLabel | None] = [*VERDICTS, None]
        yield Line(min(depth, DEEPEST), None, tuple((label, left[label]) for label in order if left[label]))


def _label(branch: Branch) -> VerdictLabel | None:
    verdict = branch.node.verdict
    return None if verdict is None or verdict.inferred_from is not None else verdict.label
