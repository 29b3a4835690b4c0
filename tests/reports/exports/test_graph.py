"""The family as GraphML says what its JSON says, and hostile names are text in it."""

from __future__ import annotations

import io
import json

import networkx as nx
import pytest

from reports.text import clean
from tests.reports import hostile
from tests.reports.exports.built import built, hostile_built

BOTH = pytest.mark.parametrize("files", [built, hostile_built], ids=["sample", "hostile"])


def _ends(files: dict[str, bytes], suffix: str) -> bytes:
    (data,) = (data for path, data in files.items() if path.endswith(suffix))
    return data


@BOTH
def test_a_graph_has_the_nodes_and_edges_of_the_tree(files):
    """As a reader of GraphML finds them; two edges of one pair stay two."""
    tree = json.loads(_ends(files(), "/tree.json"))
    graph = nx.read_graphml(io.BytesIO(_ends(files(), "/tree.graphml")), force_multigraph=True)
    assert graph.is_directed()
    names = [node["repo"] for node in tree["nodes"]]
    for number, node in enumerate(tree["nodes"]):
        told = {key: value for key, value in (node["verdict"] or {}).items() if value is not None}
        told = {"verdict" if key == "label" else key: value for key, value in told.items()}
        told |= {"repo": node["repo"], "role": node["role"]}
        told |= {} if node["gone_at"] is None else {"gone_at": node["gone_at"]}
        assert graph.nodes[f"n{number}"] == {key: clean(value, 300) for key, value in told.items()}
    assert len(graph) == len(names)
    edges = [(edge["child"], edge["base"], edge["kind"], edge["relation"]) for edge in tree["edges"]]
    found = [
        (names[int(child[1:])], names[int(base[1:])], data["kind"], data.get("relation"))
        for child, base, data in graph.edges(data=True)
    ]
    assert sorted(found, key=repr) == sorted(edges, key=repr)
    assert edges


def test_nothing_hidden_is_in_a_graph():
    """Nor markup of a name's own."""
    text = _ends(hostile_built(), "/tree.graphml").decode()
    assert not set(text) & set(hostile.HIDDEN)
    assert "<script" not in text
