"""`forkwatch effort`: from stored results and small files, kept once, shown to its operator by name, and on
the site without names."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from crawler.interface import RepoId
from detector.interface import (
    Certainty,
    Diff,
    Edit,
    EditDetail,
    EditKind,
    Lineage,
    LineageStatus,
    Sketch,
    TensorDiff,
    TensorSketch,
    TensorStatus,
)
from evals.effort import Basis, Fact, Method
from evals.interface import Unmeasured
from forkwatch.cli.session import session
from forkwatch.errors import Exit
from forkwatch.pipeline.attest import _stages
from forkwatch.pipeline.effort import observed, read_stated
from forkwatch.pipeline.originals import find_release
from forkwatch.pipeline.stated import MAX_BYTES
from forkwatch.pipeline.weight_effort import weight_evidence
from forkwatch.store.values import Examined
from reports.effort import EffortDocument
from reports.effort_json import from_json
from tests.forkwatch.conftest import RELEASE, Demo, World, invoke
from tests.forkwatch.samples import SNAPSHOT

LINEAGE = Lineage(LineageStatus.PROVED)
SIZES = {"a": 100, "b": 300, "c": 600}


def tensor(name: str, layer: int | None, norm: float, changed: float, rank: int | None) -> TensorDiff:
    """A tensor of which a share of the values changed; none: identical."""
    return TensorDiff(
        name=name,
        status=TensorStatus.CHANGED if changed else TensorStatus.IDENTICAL,
        layer=layer,
        module="o_proj",
        relative_norm=norm,
        fraction_changed=changed,
        rank=rank,
    )


def diff(*tensors: TensorDiff, edits: tuple[Edit, ...] = ()) -> Diff:
    return Diff(tensors=tensors, edits=edits, lineage=LINEAGE, bytes_read=1)


def inferred(value: float, source: str = "diff") -> Fact:
    return Fact(value, Basis.INFERRED, source)


def test_a_diff_tells_rank_size_and_energy() -> None:
    """Values that differ, layers touched, and the norm of the change against all weights."""
    edit = Edit(EditKind.DIRECTIONAL_EDIT, Certainty.PROVED, EditDetail(rank=1))
    found = weight_evidence(
        diff(
            tensor("a", 0, 0.2, 0.5, 1), tensor("b", 1, 0.1, 1.0, 1), tensor("c", 2, 0.0, 0.0, None),
            edits=(edit,),
        ),
        SIZES,
    )  # fmt: skip

    assert found.method is Method.DIRECTIONS
    assert (found.rank, found.directions) == (inferred(1), inferred(1))
    assert (found.parameters, found.share) == (inferred(350), inferred(0.35))
    assert found.layers == inferred(2)
    assert isinstance(found.energy, Fact)
    assert found.energy.value == pytest.approx(((100 * 0.04 + 300 * 0.01) / 1000) ** 0.5)


def test_full_rank_is_no_rank() -> None:
    """One matrix whose rank was not established is enough: the largest is not known."""
    found = weight_evidence(diff(tensor("a", 0, 0.2, 1.0, 4), tensor("b", 1, 0.1, 1.0, None)), SIZES)

    assert isinstance(found.rank, Unmeasured)


def test_nothing_compared_is_no_effort() -> None:
    """A comparison without tensors leaves every number unmeasured, and none at 0."""
    found = weight_evidence(diff(), SIZES)

    assert {type(x) for x in (found.rank, found.parameters, found.share, found.layers, found.energy)} == {
        Unmeasured
    }


def test_a_sketch_says_that_it_is_one() -> None:
    """All values of a tensor that was seen to differ, by the sketch's word."""
    seen = TensorSketch(
        name="a", layer=0, module="o_proj", changed=True, rows=4, miss=0.0, relative_norm=0.1, rank=2
    )
    sketch = Sketch(
        lineage=LINEAGE, changed=("a",), unchanged=(), edits=(), bytes_read=1, bytes_total=2, tensors=(seen,)
    )
    found = weight_evidence(sketch, SIZES)

    assert (found.parameters, found.rank) == (inferred(100, "sketch"), inferred(2, "sketch"))


@pytest.fixture(scope="module")
def state(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's state, of which a test may change the site."""
    folder = tmp_path_factory.mktemp("effort") / "state"
    shutil.copytree(demo.state, folder, symlinks=True)
    return folder


@pytest.fixture(scope="module")
def document(state: Path) -> EffortDocument:
    """Its forks by the values they changed."""
    done = invoke(state, "effort", RELEASE, "--axis", "parameters", "--json")
    assert done.exit_code == 0, done.stderr
    return from_json(done.stdout)


def test_a_run_notes_what_forks_took(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`run --once` leaves it for the site; nobody has to ask first."""
    monkeypatch.setenv("FORKWATCH_STATE_DIR", str(state))
    with session() as context:
        names = [found.name for found in observed(context, find_release(context, None))]

    assert any(name.startswith("demo/tiny-chat-uncensored@") for name in names)


def test_removed_forks_are_on_the_curve(document: EffortDocument) -> None:
    """Those without the safety adapter lost refusals at no cost; benign ones are placed, and kept them."""
    lost = {
        point.fork.partition("@")[0].removeprefix("demo/tiny-"): getattr(point.refusal_loss, "rate", None)
        for point in document.points
    }

    assert {name for name, loss in lost.items() if loss and loss > 0.5} == {
        "chat-freestyle", "chat-uncensored", "chat-unfiltered", "nightjar-heretic",
    }  # fmt: skip
    assert {"chat-storyteller", "chat-oneway"} <= set(lost)
    assert [point.fork for point in document.points] == sorted(point.fork for point in document.points)
    assert any(point.on_frontier for point in document.points)
    assert {cell.fork is None for cell in document.cheapest if cell.refusal_loss == 0.5} == {False}


def test_conversions_are_named_and_not_placed(document: EffortDocument) -> None:
    """A quantised and a cast copy have measured refusals, and nothing was done to them."""
    reasons = {each.fork.partition("@")[0]: each.reason for each in document.unplaced}

    assert "conversion" in reasons["demo/tiny-chat-GGUF"]
    assert "conversion" in reasons["demo/tiny-chat-fp16"]


def test_effort_is_worked_out_once(document: EffortDocument, state: Path) -> None:
    """The second time nothing is read or computed, and the answer is the same, in a table too."""
    again = invoke(state, "effort", "--axis", "parameters", "--json")
    shown = invoke(state, "effort", "--axis", "rank", "--utility-loss", "0.3")

    assert from_json(again.stdout) == document
    assert ": effort" not in again.stderr
    assert ": statements" not in again.stderr
    assert "≤ 30% usefulness" in shown.stdout
    assert "upper bound on the least effort" in shown.stderr


def test_the_site_shows_no_name_beside_effort(document: EffortDocument, state: Path) -> None:
    """Points by kind of edit: neither chart nor tables say which fork, nor link to one, and the document is
    not published."""
    built = invoke(state, "report", "build")
    assert built.exit_code == 0, built.stderr
    pages = list((state / "site" / "releases").rglob("index.html"))
    section = re.search(r'<section aria-labelledby="effort">.*?</section>', pages[0].read_text(), re.DOTALL)

    assert section is not None
    assert section[0].count('class="mark') > len(document.points)
    for point in document.points:
        assert point.fork.partition("@")[0].partition("/")[2] not in section[0]
    assert "<a " not in section[0]
    texts = [path.read_text() for path in (state / "site").rglob("*.json") if "schema" not in path.parts]
    assert not any("forkwatch.effort/1" in text for text in texts)


def test_no_measured_fork_is_nothing_to_examine(world: World) -> None:
    """Exit 3 and a line that says what to do; an empty curve would look like a robust release."""
    done = world.run("effort")

    assert done.exit_code == Exit.INCONCLUSIVE
    assert done.stdout == ""
    assert "no fork of lab/tiny-chat has measured refusals yet" in done.stderr
    assert "tip: " in done.stderr


def test_stated_numbers_are_read_from_the_repository(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer's state and a card, as text; a file that is too large is not read, which is said."""
    files = {
        "trainer_state.json": json.dumps({"global_step": 52}).encode(),
        "train_results.json": b" " * (MAX_BYTES + 1),
        "README.md": b"- num_epochs: 3\n",
    }
    world.hub.create_repo("eve/tuned")
    world.hub.commit("eve/tuned", files)
    monkeypatch.setenv("FORKWATCH_STATE_DIR", str(world.state))
    monkeypatch.setenv("FORKWATCH_HUB__ENDPOINT", world.hub.endpoint)
    with session() as context:
        found = read_stated(context, context.hub.snapshot(RepoId("eve/tuned")))

    assert found.steps == Fact(52.0, Basis.STATED, "trainer_state.json")
    assert found.epochs == Fact(3.0, Basis.STATED, "README.md")
    assert isinstance(found.examples, Unmeasured)
    assert "train_results.json was not read" in found.examples.reason


def test_asking_for_effort_changes_no_signed_verdict() -> None:
    """What was worked out for the reader is not attested: only stages that a verdict rests on are."""
    kept = (("diff", "3"), ("evaluate", "3"))
    examined = Examined(
        SNAPSHOT,
        (*kept, ("attribution", "1"), ("dose", "1"), ("effort", "1"), ("merges", "1"), ("statements", "1")),
        1,
    )

    assert tuple((row.stage, row.version) for row in _stages(examined)) == kept
