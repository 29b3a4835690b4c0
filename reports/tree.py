"""`forkwatch.tree/1`: a release's family. What repositories claim and what weights prove are kept apart."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from reports.plan import digest_of
from reports.scan import CertaintyName, VerdictLabel


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeVerdict:
    """A fork's own verdict, or one inferred from the fork that it claims to be a quantisation of."""

    label: VerdictLabel
    certainty: CertaintyName | Literal["inferred"]
    """`inferred`: nobody has examined this repository; the verdict is another's, if its claim is true."""
    inferred_from: str | None = None
    """The examined fork at the end of the chain of claims."""


@dataclass(slots=True, kw_only=True)
class TreeNode:
    """One repository."""

    repo: str
    role: Literal["release", "fork", "outside"]
    """`outside`: named as a base by a fork, and no member of the family itself."""
    channels: tuple[str, ...] = ()
    """How it was found."""
    verdict: TreeVerdict | None = None
    gone_at: str | None = None
    """ISO 8601, UTC: since when it is gone; None while it is there."""


@dataclass(slots=True, kw_only=True)
class TreeEdge:
    """Descent of `child` from `base`."""

    child: str
    base: str
    kind: Literal["claimed", "proved"]
    """`claimed` by the child; `proved` by its weights, and then `base` is the release."""
    relation: Literal["finetune", "adapter", "merge", "quantized"] | None = None
    channels: tuple[str, ...] = ()
    """How the child was found, for a claimed edge."""
    statement: str = ""
    """The claim, quoted. Hostile text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCount:
    """How many nodes carry a verdict."""

    label: VerdictLabel
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeDocument:
    """The whole graph. It may hold cycles: repositories can claim what they like."""

    schema: Literal["forkwatch.tree/1"] = "forkwatch.tree/1"
    release: str
    """`org/name@<commit>`"""
    nodes: tuple[TreeNode, ...]
    """The release, then by name."""
    edges: tuple[TreeEdge, ...]
    """By child, base and kind."""
    verdicts: tuple[LabelCount, ...]
    """Own verdicts only."""
    inferred: tuple[LabelCount, ...]
    """Inferred ones, never counted among the own."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One line of the tree as it is drawn."""

    depth: int
    node: TreeNode
    edges: tuple[TreeEdge, ...]
    """From this node to the one it hangs under."""
    again: bool
    """Drawn in full elsewhere: once, with its descendants, however many bases it has."""


def tree_digest(document: TreeDocument) -> str:
    """Of everything in it."""
    nodes = [
        (n.repo, n.role, n.channels, n.gone_at, n.verdict and _VERDICT(n.verdict)) for n in document.nodes
    ]
    edges = list(map(_EDGE, document.edges))
    counts = [(each.label, each.count) for each in (*document.verdicts, *document.inferred)]
    return digest_of((document.release, nodes, edges, len(document.verdicts), counts))


_VERDICT = attrgetter("label", "certainty", "inferred_from")
_EDGE = attrgetter("child", "base", "kind", "relation", "channels", "statement")


def branches(document: TreeDocument) -> tuple[Branch, ...]:
    """The graph as an indented tree, every node in full exactly once, whatever cycles there are.

    A node hangs under the fork that it claims to derive from; without one, under the release; without that,
    under the outside base that it claims; else it is a root. Under its other bases it is mentioned.
    """
    nodes = {node.repo: node for node in document.nodes}
    homes = _homes(document, nodes)
    under: dict[str | None, list[str]] = {}
    for child, home in homes.items():
        under.setdefault(home, []).append(child)
    links: dict[tuple[str, str], list[TreeEdge]] = {}
    for edge in document.edges:
        links.setdefault((edge.child, edge.base), []).append(edge)
    mentions: dict[str, list[str]] = {}
    for child, base in links:
        if child != base and homes.get(child) != base:
            mentions.setdefault(base, []).append(child)
    drawn: list[Branch] = []
    pile: list[tuple[int, str, str | None, bool]]
    pile = [(0, name, None, False) for name in reversed(under.get(None, []))]
    while pile:
        depth, name, above, again = pile.pop()
        edges = () if above is None else tuple(links.get((name, above), ()))
        drawn.append(Branch(depth, nodes[name], edges, again))
        if not again:
            children = [(child, False) for child in under.get(name, ())]
            children += [(child, True) for child in mentions.get(name, ())]
            pile.extend((depth + 1, child, name, seen) for child, seen in sorted(children, reverse=True))
    return tuple(drawn)


def _homes(document: TreeDocument, nodes: dict[str, TreeNode]) -> dict[str, str | None]:
    """Under which node each is drawn in full; None for a root. The result has no cycle."""
    wanted: dict[str, list[tuple[int, str]]] = {}
    for edge in document.edges:
        if edge.child != edge.base:
            role = nodes[edge.base].role
            order = {"fork": 0, "release": 1, "outside": 2}[role]
            wanted.setdefault(edge.child, []).append((order, edge.base))
    homes: dict[str, str | None] = {}
    for node in document.nodes:
        bases = sorted(set(wanted.get(node.repo, ()))) if node.role == "fork" else []
        homes[node.repo] = next((base for _, base in bases if not _leads_to(homes, base, node.repo)), None)
    return homes


def _leads_to(homes: dict[str, str | None], start: str, target: str) -> bool:
    place: str | None = start
    while place is not None and place != target:
        place = homes.get(place)
    return place is not None
