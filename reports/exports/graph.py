"""The family of a release as GraphML, for programs that draw and measure graphs."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from reports.text import clean
from reports.tree import TreeDocument, TreeEdge, TreeNode

_NODE = ("repo", "role", "verdict", "certainty", "inferred_from", "gone_at")
_EDGE = ("kind", "relation")


def to_graphml(document: TreeDocument) -> str:
    """Nodes are numbered as they are listed; an edge leads from a fork to its base, claimed or proved."""
    numbers = {node.repo: f"n{number}" for number, node in enumerate(document.nodes)}
    return "".join(
        (
            '<?xml version="1.0" encoding="UTF-8"?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n',
            *_keys("node", _NODE),
            *_keys("edge", _EDGE),
            f'<graph id="{_text(document.release)}" edgedefault="directed">\n',
            *(f'<node id="{numbers[node.repo]}">{_node(node)}</node>\n' for node in document.nodes),
            *(
                f'<edge source="{numbers[edge.child]}" target="{numbers[edge.base]}">{_edge(edge)}</edge>\n'
                for edge in document.edges
            ),
            "</graph>\n</graphml>\n",
        )
    )


def _keys(kind: str, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        yield f'<key id="{name}" for="{kind}" attr.name="{name}" attr.type="string"/>\n'


def _node(node: TreeNode) -> str:
    found = f'<data key="repo">{_text(node.repo)}</data><data key="role">{node.role}</data>'
    if node.verdict is not None:
        found += f'<data key="verdict">{node.verdict.label}</data>'
        found += f'<data key="certainty">{node.verdict.certainty}</data>'
        if node.verdict.inferred_from is not None:
            found += f'<data key="inferred_from">{_text(node.verdict.inferred_from)}</data>'
    if node.gone_at is not None:
        found += f'<data key="gone_at">{_text(node.gone_at)}</data>'
    return found


def _edge(edge: TreeEdge) -> str:
    relation = "" if edge.relation is None else f'<data key="relation">{edge.relation}</data>'
    return f'<data key="kind">{edge.kind}</data>{relation}'


def _text(text: str) -> str:
    """Hostile: for the content of an element and of an attribute."""
    return escape(clean(text, 300))
