"""The family of a release as a graph: edges that are claimed or proved, and verdicts that may be inferred.

A quantisation of a fork without safety is most probably one too, and there are many: the verdict is passed on
along claims of being a quantisation, marked as inferred, until the repository has been examined itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache

from crawler.interface import Channel, Claim, Relation
from forkwatch.text import plain
from reports.scan import CertaintyName, VerdictLabel
from reports.tree import LabelCount, TreeDocument, TreeEdge, TreeNode, TreeVerdict

PASSED_ON: tuple[VerdictLabel, ...] = ("safety-degraded", "safety-removed")
"""Verdicts that a quantisation inherits, the milder first: of two bases the milder one counts."""


@dataclass(frozen=True, slots=True)
class OwnVerdict:
    """What an examination of the repository itself concluded."""

    label: VerdictLabel
    certainty: CertaintyName
    proved: bool
    """Its weights prove that it derives from the release."""


@dataclass(frozen=True, slots=True)
class FormerName:
    """A name that a repository had, which claims about it may still use."""

    name: str
    until: datetime
    """When the rename was noticed."""


@dataclass(slots=True)
class Member:
    """One candidate of the release."""

    repo: str
    channels: tuple[Channel, ...]
    claims: tuple[Claim, ...]
    verdict: OwnVerdict | None
    gone_at: str | None
    """ISO 8601, UTC."""
    former_names: tuple[FormerName, ...] = ()
    """Those that nobody else is known to have had since."""
    created_at: datetime | None = None


def build_tree(release: str, commit: str, members: Iterable[Member]) -> TreeDocument:
    """The graph. The same members give the same document, in whatever order they come."""
    family = {member.repo: member for member in sorted(members, key=lambda member: member.repo)}
    names = {name.casefold(): name for name in (*family, release)}
    former = _former(family.values())
    claimed = {
        name: tuple(_claimed(member, names, former)) for name, member in family.items() if name != release
    }
    inferred = _inferred(family, claimed)
    nodes = [TreeNode(repo=release, role="release")]
    edges: list[TreeEdge] = []
    outside: set[str] = set()
    for name, links in claimed.items():
        member = family[name]
        nodes.append(
            TreeNode(
                repo=name,
                role="fork",
                channels=_names(member.channels),
                verdict=_own(member.verdict) if member.verdict else inferred.get(name),
                gone_at=member.gone_at,
            )
        )
        edges += links
        outside |= {edge.base for edge in links if edge.base not in family and edge.base != release}
        if member.verdict is not None and member.verdict.proved:
            edges.append(TreeEdge(child=name, base=release, kind="proved"))
    nodes += [TreeNode(repo=name, role="outside") for name in outside]
    own = Counter(member.verdict.label for member in family.values() if member.verdict is not None)
    return TreeDocument(
        release=f"{release}@{commit}",
        nodes=tuple(sorted(nodes, key=lambda node: (node.role != "release", node.repo))),
        edges=tuple(sorted(edges, key=lambda edge: (edge.child, edge.base, edge.kind))),
        verdicts=_counts(own),
        inferred=_counts(Counter(verdict.label for verdict in inferred.values())),
    )


@lru_cache(maxsize=1 << 8)
def _names(channels: tuple[Channel, ...]) -> tuple[str, ...]:
    return tuple(str(channel) for channel in channels)


_statement = lru_cache(maxsize=1 << 12)(plain)
"""Most forks claim in the same words."""


def _former(members: Iterable[Member]) -> Mapping[str, tuple[str, datetime]]:
    """Who had a name, and until when; a name that two had says nothing."""
    found: dict[str, tuple[str, datetime]] = {}
    twice = set()
    for member in members:
        for old in member.former_names:
            name = old.name.casefold()
            repo, until = found.get(name, (member.repo, old.until))
            found[name] = member.repo, max(until, old.until)
            if repo != member.repo:
                twice.add(name)
    return {name: holder for name, holder in found.items() if name not in twice}


def _claimed(
    member: Member, names: Mapping[str, str], former: Mapping[str, tuple[str, datetime]]
) -> Iterable[TreeEdge]:
    """One edge a base; of several claims about one base, the first that names a relation."""
    by_base: dict[str, TreeEdge] = {}
    for claim in member.claims:
        if claim.base is None:
            continue
        name = claim.base.casefold()
        base = names.get(name, claim.base)
        if name not in names and name in former:
            # A repository made after the rename means whoever took the name, whom nobody may have seen yet.
            renamed, until = former[name]
            base = renamed if member.created_at is None or member.created_at <= until else base
        edge = TreeEdge(
            child=member.repo,
            base=base,
            kind="claimed",
            relation=None if claim.relation is None else Relation(claim.relation).value,
            channels=_names(member.channels),
            statement=_statement(claim.statement),
        )
        known = by_base.get(base)
        if known is None or (known.relation is None and edge.relation is not None):
            by_base[base] = edge
    return by_base.values()


def _inferred(
    family: Mapping[str, Member], claimed: Mapping[str, tuple[TreeEdge, ...]]
) -> dict[str, TreeVerdict]:
    """Verdicts of unexamined quantisations, passed on from base to child until nothing changes."""
    children: dict[str, list[str]] = {}
    for links in claimed.values():
        for edge in links:
            if edge.relation == "quantized" and edge.child != edge.base:
                children.setdefault(edge.base, []).append(edge.child)
    found: dict[str, TreeVerdict] = {}
    # The milder verdict first, sources by name: who is reached first keeps what reached it.
    for label in PASSED_ON:
        for source, member in family.items():
            if member.verdict is None or member.verdict.label != label:
                continue
            passed = TreeVerdict(label=label, certainty="inferred", inferred_from=source)
            pile = [source]
            while pile:
                for child in children.get(pile.pop(), ()):
                    if child in found or family[child].verdict is not None:
                        continue
                    found[child] = passed
                    pile.append(child)
    return found


@cache
def _own(verdict: OwnVerdict) -> TreeVerdict:
    return TreeVerdict(label=verdict.label, certainty=verdict.certainty)


def _counts(counts: Counter[VerdictLabel]) -> tuple[LabelCount, ...]:
    return tuple(LabelCount(label=label, count=counts[label]) for label in sorted(counts))
