"""`forkwatch classifier`, and what a run makes of the answers that its evaluations left."""

from __future__ import annotations

import json
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from sqlmodel import Session, select

from detector.outputs.interface import ReferencePack
from detector.outputs.label import CONVERSIONS
from detector.outputs.pack import write_pack
from forkwatch.cli.session import session
from forkwatch.errors import Exit
from forkwatch.pipeline.classifier import update_classifier
from forkwatch.pipeline.classifier_pack import ObservedFork, choose_witnesses
from forkwatch.pipeline.context import Silent
from forkwatch.pipeline.originals import open_original
from forkwatch.sections.hub import HubSettings
from forkwatch.sections.judging import PolicySettings
from forkwatch.settings import Settings
from forkwatch.state import StateDir
from forkwatch.store.engine import open_engine
from forkwatch.store.models import Release, Result
from forkwatch.store.store import Store
from tests.detector.outputs.speakers import AUTHENTIC, Speaker, sample
from tests.forkwatch.conftest import RELEASE, Demo, World, invoke
from tests.forkwatch.past import Clock


@pytest.fixture(scope="module")
def state(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the demo's state: tests write to it."""
    copied = tmp_path_factory.mktemp("classifier") / "state"
    shutil.copytree(demo.state, copied, ignore=shutil.ignore_patterns("cache", "site*"))
    return copied


def results(state: Path, stage: str) -> list[Result]:
    engine = open_engine(f"sqlite:///{state / 'forkwatch.db'}")
    with Session(engine) as session:
        found = session.exec(select(Result).where(Result.stage == stage)).all()
    engine.dispose()
    return list(found)


def test_a_run_leaves_a_classifier_and_a_result_for_each_measured_fork(demo: Demo) -> None:
    """Too few answers for a threshold, and it says so: no fork is called anything by it."""
    (trained,) = results(demo.state, "classifier")
    assert trained.payload["value"]["digest"].startswith("sha256:")
    attributed = results(demo.state, "attribution")
    measured = {row.snapshot_id for row in results(demo.state, "evaluate")} - {trained.snapshot_id}
    assert {row.snapshot_id for row in attributed} == measured
    decisions = {one["decision"] for row in attributed for one in row.payload["value"]["results"]}
    assert decisions == {"insufficient-evidence"}


def test_a_cast_of_a_modified_model_is_of_its_family(state: Path) -> None:
    """A fork in another format than the one it was modified in."""
    engine = open_engine(f"sqlite:///{state / 'forkwatch.db'}")
    with Session(engine) as session:
        release = session.exec(select(Release)).one()
    store = Store(engine, Clock())
    assert release.id is not None
    one = next(one for one in store.verdicts(release.id) if one.document.edits)
    examined = store.examined(one.repo_id, one.document.commit, release.root_digest)
    engine.dispose()
    assert examined is not None
    cast, merge = (replace(one.document.edits[0], kind=kind) for kind in ("dtype-cast", "low-rank-merge"))
    families = [
        ObservedFork(replace(one.document, edits=edits), examined).family
        for edits in ((cast, merge), (merge, cast), (cast,), ())
    ]
    assert families == ["low-rank-merge", "low-rank-merge", "dtype-cast", "unknown"]


def test_witnesses_are_changed_and_of_as_many_families_as_there_are(state: Path) -> None:
    """Never a conversion, and the same ones each time."""
    engine = open_engine(f"sqlite:///{state / 'forkwatch.db'}")
    with Session(engine) as session:
        release = session.exec(select(Release)).one()
    store = Store(engine, Clock())
    assert release.id is not None
    found = {one.repo_id: one for one in store.verdicts(release.id)}.values()
    examined = [store.examined(one.repo_id, one.document.commit, release.root_digest) for one in found]
    engine.dispose()
    forks = [ObservedFork(a.document, b) for a, b in zip(found, examined, strict=True) if b is not None]
    modified = {fork.name: fork.family for fork in forks if fork.family not in CONVERSIONS}
    families = len(set(modified.values()))
    assert 1 < families < len(modified) < len(forks)
    chosen = choose_witnesses(forks, families)
    assert chosen == choose_witnesses(forks[::-1], families) < modified.keys()
    assert {modified[name] for name in chosen} == set(modified.values())
    assert choose_witnesses(forks, 100) == modified.keys()
    assert not choose_witnesses(forks, 0)


def test_the_files_are_of_the_forks_that_are_measured_now(state: Path) -> None:
    """Also where the same were measured before, and others in between."""
    (file,) = (state / "classifiers").glob("*/texts/document.json")
    alphas = []
    for alpha in (0.01, 0.05, 0.01, 0.01):
        settings = Settings(
            hub=HubSettings(endpoint="http://127.0.0.1:9"), policy=PolicySettings(alpha=alpha)
        )
        before = file.stat().st_ino, file.read_bytes()
        with session(settings, StateDir(state), talk=Silent()) as context:
            update_classifier(context, open_original(context, context.store.releases()[0]))
        alphas.append(json.loads(file.read_bytes())["alpha"])
    assert alphas == [0.01, 0.05, 0.01, 0.01]
    assert (file.stat().st_ino, file.read_bytes()) == before


def test_the_card_is_printed_and_the_files_are_private(demo: Demo) -> None:
    """As Markdown and as JSON; raw answers are in neither."""
    card = invoke(demo.state, "classifier", "card")
    assert card.exit_code == Exit.OK
    assert "no proof of identity" in card.stdout
    document = json.loads(invoke(demo.state, "classifier", "card", "--json").stdout)
    assert document["schema"] == "forkwatch.output-classifier/1"
    assert [mode["mode"] for mode in document["modes"]] == ["text"]
    assert document["modes"][0]["largest"] == 0
    assert {one["counts_as"] for one in document["trained_on"]} == {"authentic", "modified"}
    files = list((demo.state / "classifiers").rglob("*.*"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_the_site_shows_it_with_its_limits(demo: Demo, state: Path) -> None:
    """On the release's page."""
    assert invoke(state, "report", "build").exit_code == Exit.OK
    pages = [path.read_text() for path in (state / "site" / "releases").rglob("index.html")]
    page = next(page for page in pages if 'id="classifier"' in page)
    assert "Insufficient evidence, whatever the outputs" in page
    assert "no proof of identity" in page


def a_pack(root_digest: str) -> ReferencePack:
    fork = "bad/fork@" + "b" * 40
    return ReferencePack(
        release=f"{RELEASE}@{'a' * 40}",
        root_digest=root_digest,
        probe_set="sha256:2",
        transcripts=(),
        samples=(
            sample("authentic", AUTHENTIC, 24, 1, benign=True),
            sample(fork, Speaker(1, 1.5), 4, 2, family="low-rank-merge"),
        ),
        refusals=(),
        first_logprobs={},
    )


def test_a_classifier_is_trained_from_a_pack_of_the_release(state: Path, tmp_path: Path) -> None:
    """With scores it has a threshold for one output, and is the one that is published from then on."""
    engine = open_engine(f"sqlite:///{state / 'forkwatch.db'}")
    with Session(engine) as session:
        root = session.exec(select(Release.root_digest)).one()
    engine.dispose()
    write_pack(a_pack(root), tmp_path / "pack")
    elsewhere = invoke(
        state, "classifier", "train", "--pack", str(tmp_path / "pack"), "--out", str(tmp_path / "out")
    )
    assert elsewhere.exit_code == Exit.OK, elsewhere.stderr
    assert "threshold for up to 1 outputs" in elsewhere.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "model.safetensors", "config.json", "card.md", "document.json",
    }  # fmt: skip
    assert '"mode": "score"' not in invoke(state, "classifier", "card", "--json").stdout
    kept = invoke(state, "classifier", "train", "--pack", str(tmp_path / "pack"), "--json")
    assert [mode["mode"] for mode in json.loads(kept.stdout)["modes"]] == ["score", "text"]
    assert '"mode": "score"' in invoke(state, "classifier", "card", "--json").stdout

    write_pack(replace(a_pack("sha256:other")), tmp_path / "pack")
    other = invoke(state, "classifier", "train", "--pack", str(tmp_path / "pack"))
    assert other.exit_code == Exit.USAGE
    assert "reference pack is of sha256:other" in other.stderr
    write_pack(replace(a_pack(root), samples=a_pack(root).samples[:1]), tmp_path / "pack")
    alone = invoke(state, "classifier", "train", "--pack", str(tmp_path / "pack"))
    assert alone.exit_code == Exit.INCONCLUSIVE
    assert "none of a modified fork" in alone.stderr


def test_without_a_classifier_there_is_no_card(world: World) -> None:
    """Nothing to examine is not success."""
    done = world.run("classifier", "card")
    assert done.exit_code == Exit.INCONCLUSIVE
    assert "has no classifier" in done.stderr
