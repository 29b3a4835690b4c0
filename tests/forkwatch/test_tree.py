"""The family graph: claims and proofs apart, cycles harmless, inference marked and revocable."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import jsonschema
from hypothesis import given
from hypothesis import strategies as st

from crawler.interface import Channel, Claim, Relation, RepoId
from forkwatch.pipeline.tree import FormerName, Member, OwnVerdict, build_tree
from reports.scan import VerdictLabel
from reports.tree import TreeDocument, TreeEdge, branches
from reports.tree_json import from_json, json_schema, to_json

RELEASE = "lab/model"
COMMIT = "a" * 40
RENAMED_AT = datetime(2026, 3, 1, tzinfo=UTC)


def claim(base: str, relation: Relation | None = Relation.FINETUNE) -> Claim:
    """A declared base."""
    return Claim(RepoId(base), relation, f"base_model: {base}")


def quant(base: str) -> Claim:
    """Declared as a quantisation."""
    return claim(base, Relation.QUANTIZED)


def member(repo: str, *claims: Claim, label: VerdictLabel | None = None, proved: bool = True) -> Member:
    """A candidate, examined when it has a label."""
    own = None if label is None else OwnVerdict(label, "consistent-with", proved)
    return Member(repo, (Channel.DECLARED,), claims, own, None)


def was(repo: str, before: str) -> Member:
    """A fork without safety that had another name."""
    return replace(member(repo, label="safety-removed"), former_names=(FormerName(before, RENAMED_AT),))


def tree(*members: Member) -> TreeDocument:
    """The graph of some members."""
    return build_tree(RELEASE, COMMIT, members)


def verdicts(document: TreeDocument) -> dict[str, tuple[str, str, str | None]]:
    """Verdict of each node that has one."""
    return {
        node.repo: (node.verdict.label, node.verdict.certainty, node.verdict.inferred_from)
        for node in document.nodes
        if node.verdict is not None
    }


def drawn(document: TreeDocument) -> list[tuple[int, str, bool]]:
    """What the tree looks like."""
    return [(branch.depth, branch.node.repo, branch.again) for branch in branches(document)]


def test_claimed_and_proved_edges_are_two() -> None:
    """A fork that declares the release and whose weights show it has both edges, each said for what it is."""
    document = tree(member("x/fork", claim(RELEASE), label="benign-derivative"))

    assert document.edges == (
        TreeEdge(
            child="x/fork",
            base=RELEASE,
            kind="claimed",
            relation="finetune",
            channels=("declared",),
            statement=f"base_model: {RELEASE}",
        ),
        TreeEdge(child="x/fork", base=RELEASE, kind="proved"),
    )


def test_a_claim_alone_proves_nothing() -> None:
    """An examined fork whose lineage is not proved has no proved edge."""
    document = tree(member("x/fork", claim(RELEASE), label="unrelated", proved=False))

    assert [edge.kind for edge in document.edges] == ["claimed"]


def test_a_quantisation_of_an_uncensored_fork_is_inferred() -> None:
    """Its label is the fork's, its certainty is `inferred`, and it says from whom; it is counted apart."""
    document = tree(member("x/a", claim(RELEASE), label="safety-removed"), member("y/a-gguf", quant("x/a")))

    assert verdicts(document) == {
        "x/a": ("safety-removed", "consistent-with", None),
        "y/a-gguf": ("safety-removed", "inferred", "x/a"),
    }
    assert [(count.label, count.count) for count in document.verdicts] == [("safety-removed", 1)]
    assert [(count.label, count.count) for count in document.inferred] == [("safety-removed", 1)]


def test_inference_passes_through_chains() -> None:
    """A quantisation of a quantisation inherits from the examined fork at the end."""
    chain = [member("x/a", label="safety-degraded")]
    chain += [member(f"y/q{n}", quant("x/a" if n == 0 else f"y/q{n - 1}")) for n in range(1200)]
    found = verdicts(tree(*chain))

    assert len(found) == 1201
    assert found["y/q1199"] == ("safety-degraded", "inferred", "x/a")


def test_an_examined_child_has_its_own_verdict_and_passes_on_that() -> None:
    """Inference ends where somebody looked."""
    document = tree(
        member("x/a", label="safety-removed"),
        member("y/q", quant("x/a"), label="benign-derivative"),
        member("z/qq", quant("y/q")),
    )

    assert verdicts(document) == {
        "x/a": ("safety-removed", "consistent-with", None),
        "y/q": ("benign-derivative", "consistent-with", None),
    }
    assert document.inferred == ()


def test_only_quantisations_inherit() -> None:
    """A fine-tune, merge or adapter of an uncensored fork may have its refusals back."""
    others = [claim("x/a", relation) for relation in (None, *Relation) if relation is not Relation.QUANTIZED]
    document = tree(
        member("x/a", label="safety-removed"),
        *(member(f"y/{number}", other) for number, other in enumerate(others)),
    )

    assert set(verdicts(document)) == {"x/a"}


def test_other_verdicts_are_not_passed_on() -> None:
    """Only what a quantisation cannot undo is inferred: nobody inherits `unsafe-files`, or `benign`."""
    labels: tuple[VerdictLabel, ...] = ("benign-derivative", "unsafe-files", "misrepresented", "inconclusive")
    for label in labels:
        assert set(verdicts(tree(member("x/a", label=label), member("y/q", quant("x/a"))))) == {"x/a"}


def test_of_two_bases_the_milder_verdict_counts() -> None:
    """Towards not accusing, whatever the names."""
    for first, second in itertools.permutations(("safety-removed", "safety-degraded")):
        document = tree(
            member("x/a", label=first),
            member("x/b", label=second),
            member("y/q", quant("x/a"), quant("x/b")),
        )
        assert verdicts(document)["y/q"][0] == "safety-degraded"


def test_cycles_and_self_loops_end() -> None:
    """Repositories that claim each other, or themselves, are each drawn once."""
    document = tree(
        member("x/a", quant("x/b"), quant("x/a")),
        member("x/b", quant("x/c")),
        member("x/c", quant("x/a"), label="safety-removed"),
    )

    full = [name for _, name, again in drawn(document) if not again]
    assert sorted(full) == sorted([RELEASE, "x/a", "x/b", "x/c"])
    assert verdicts(document)["x/a"] == ("safety-removed", "inferred", "x/c")


def test_a_node_under_two_bases_is_drawn_once_in_full() -> None:
    """Its descendants hang where it is in full; elsewhere it is mentioned."""
    document = tree(
        member("x/a", claim(RELEASE)),
        member("x/b", claim(RELEASE)),
        member("y/merge", claim("x/a", Relation.MERGE), claim("x/b", Relation.MERGE)),
        member("z/child", claim("y/merge")),
    )

    assert drawn(document) == [
        (0, RELEASE, False),
        (1, "x/a", False),
        (2, "y/merge", False),
        (3, "z/child", False),
        (1, "x/b", False),
        (2, "y/merge", True),
    ]


def test_a_fork_of_a_fork_hangs_under_the_fork() -> None:
    """Weights prove descent from the release, the claim names the way: drawn in full under the claim."""
    document = tree(
        member("x/a", claim(RELEASE), label="safety-removed"),
        member("y/q", quant("x/a"), label="safety-removed"),
    )

    assert drawn(document) == [(0, RELEASE, False), (1, "x/a", False), (2, "y/q", False), (1, "y/q", True)]


def test_a_base_outside_the_family_is_said_to_be_outside() -> None:
    """A fork that inherited its parent's card hangs under the base that it names."""
    document = tree(member("x/a", claim("lab/base")))

    assert [(node.repo, node.role) for node in document.nodes] == [
        (RELEASE, "release"),
        ("lab/base", "outside"),
        ("x/a", "fork"),
    ]
    assert drawn(document) == [(0, RELEASE, False), (0, "lab/base", False), (1, "x/a", False)]


def test_letter_case_of_a_claim_is_no_difference() -> None:
    """`Lab/Model` is the release."""
    document = tree(member("x/a", claim("Lab/Model")))

    assert [edge.base for edge in document.edges] == [RELEASE]


def test_a_claim_about_a_former_name_is_about_the_renamed_fork() -> None:
    """A card keeps the old name; whoever has a name now comes before whoever had it."""
    renamed = was("x/b", "x/a")
    child = member("y/q", quant("x/a"))
    assert verdicts(tree(renamed, child))["y/q"][2] == "x/b"
    assert set(verdicts(tree(renamed, child, member("x/a")))) == {"x/b"}


def test_a_claim_made_after_a_rename_is_not_about_the_renamed_fork() -> None:
    """Who names `x/a` after it became `x/b` means whoever has the name by then."""
    renamed = was("x/b", "x/a")
    before, after = (
        replace(member(name, quant("x/a")), created_at=RENAMED_AT + days * timedelta(days=1))
        for name, days in (("y/before", -1), ("y/after", 1))
    )
    document = tree(renamed, before, after)

    assert set(verdicts(document)) == {"x/b", "y/before"}
    assert ("y/after", "x/a") in {(edge.child, edge.base) for edge in document.edges}


def test_a_name_that_two_forks_had_is_about_neither() -> None:
    """Which of them is meant is not known."""
    document = tree(was("x/b", "x/a"), was("x/c", "x/a"), member("y/q", quant("x/a")))

    assert set(verdicts(document)) == {"x/b", "x/c"}


def test_the_order_of_members_is_no_difference() -> None:
    """The same members give the same bytes."""
    some = [member("x/a", label="safety-removed"), member("y/q", quant("x/a")), member("z/m", claim("y/q"))]

    assert len({to_json(tree(*order)) for order in itertools.permutations(some)}) == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 7), st.integers(0, 7), st.sampled_from([None, *Relation])), max_size=30
    ),
    st.sets(st.integers(0, 7)),
)
def test_any_graph_is_drawn_whole(links: list[tuple[int, int, Relation | None]], examined: set[int]) -> None:
    """Every node in full once, every edge but self-loops on a line, and the document fits its schema."""
    claims: dict[int, list[Claim]] = {number: [] for number in range(8)}
    for child, base, relation in links:
        claims[child].append(claim(f"x/{base}", relation))
    document = tree(
        *(
            member(f"x/{number}", *claims[number], label="safety-removed" if number in examined else None)
            for number in range(8)
        )
    )

    shown = branches(document)
    full = [branch.node.repo for branch in shown if not branch.again]
    assert sorted(full) == sorted(node.repo for node in document.nodes)
    lines = [(edge.child, edge.base, edge.kind) for branch in shown for edge in branch.edges]
    assert sorted(lines) == sorted(
        (edge.child, edge.base, edge.kind) for edge in document.edges if edge.child != edge.base
    )
    text = to_json(document)
    assert from_json(text) == document
    jsonschema.validate(json.loads(text), json_schema())
