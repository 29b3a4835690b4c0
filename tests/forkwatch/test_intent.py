"""Intent in the application: measured once, kept private, shown with what it does not mean, and in no
verdict."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from crawler.interface import Channel, Commit
from detector.intent import Intent, NoIntent
from detector.interface import Certainty, Manifest
from evals.interface import Isolation, RefusalDirection
from forkwatch.cli.session import session
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.document import build_document
from forkwatch.pipeline.forecast import Predictor, fit
from forkwatch.pipeline.funnel import Examination
from forkwatch.pipeline.intent import Aim
from forkwatch.pipeline.ledger import Ledger
from forkwatch.pipeline.originals import Original, find_release, open_original
from forkwatch.pipeline.run import Tally, queue
from forkwatch.policy.facts import Facts
from forkwatch.settings import load_settings
from forkwatch.state import StateDir
from forkwatch.store.store import Store
from reports.scan import ScanDocument
from tests.forkwatch.conftest import RELEASE, Demo, Run
from tests.forkwatch.test_forecast import document as forecast_document
from tests.forkwatch.test_policy import CASES

ALIGNED = Aim(
    Intent(
        alignment=0.99,
        expected=0.1,
        extreme=0.2,
        p_value=0.0001,
        energy=0.9,
        write_change=-1.0,
        matrices=60,
        layers=(0, 29),
        splits=9999,
        certainty=Certainty.CONSISTENT,
    ),
    RefusalDirection(
        file=Path("ab" * 32),
        harmful=70,
        twins=60,
        stability=(0.1, 0.9),
        separation=(0.1, 3.0),
        sources=(1, 1),
        best=1,
        written=12.0,
        isolation=Isolation.SANDBOXED,
        device="cpu",
        seconds=1.0,
    ),
)


def make_document(store: Store, facts: Facts, aim: Aim) -> ScanDocument:
    """The document about these facts, from a ledger that is empty."""
    original = Original(
        release_id=1,
        repo=facts.release,
        commit=Commit("a" * 40),
        root_digest="sha256:1",
        signature=facts.signature,
        signer="key",
        license=None,
        folder=Path(),
        manifest=Manifest("", ()),
        suite=Path(),
        suite_digest="",
    )
    context = Context(None, store, None, None, store._now, None)  # type: ignore[arg-type]  # an empty ledger asks nobody
    ledger = Ledger(context, facts.snapshot.repo, store.pin(facts.snapshot), "sha256:1")
    return build_document(original, Examination(facts, ledger, None, aim), (Channel.DIRECT,), store.now)


@pytest.mark.parametrize("case", [case for case, _ in CASES.values()], ids=CASES.keys())
def test_no_verdict_and_no_finding_depends_on_it(store: Store, case: Facts) -> None:
    """With the strongest intent there is and with none, a document says the same in all its other parts."""
    with_it, without = (make_document(store, case, aim) for aim in (ALIGNED, Aim(NoIntent("not looked at"))))

    assert with_it.intent.status == "aligned"
    assert without.intent.reason == "not looked at"
    assert (with_it.verdict, with_it.findings) == (without.verdict, without.findings)
    assert replace(with_it, intent=without.intent) == without


def test_the_policy_cannot_see_it() -> None:
    """Findings and verdicts are made from `Facts`, which have no place for it."""
    assert not {field.name for field in fields(Facts)} & {"aim", "intent", "direction", "forecast"}


def results(demo: Demo, stage: str) -> list[tuple[str, str]]:
    """Repository and stored value of all results of a stage."""
    with sqlite3.connect(demo.state / "forkwatch.db") as database:
        query = (
            "select s.repo, r.payload from result r join snapshot s on s.id = r.snapshot_id where r.stage = ?"
        )
        rows = database.execute(query, (stage,)).fetchall()
    database.close()
    return [(repo, payload) for repo, payload in rows]


def intents(demo: Demo) -> dict[str, dict[str, object]]:
    """What was kept, by repository."""
    return {repo: json.loads(payload)["value"] for repo, payload in results(demo, "intent")}


def test_the_direction_is_measured_once_and_of_the_release_alone(demo: Demo) -> None:
    """Eighteen forks, hostile ones among them: one direction, kept under the release's own snapshot."""
    assert [repo for repo, _ in results(demo, "direction")] == [RELEASE]
    assert len(intents(demo)) >= 8


def test_the_direction_stays_in_local_state(demo: Demo, run: Run) -> None:
    """A 0600 blob that no page, no export and no document names, and no value of which they hold."""
    value = json.loads(results(demo, "direction")[0][1])["value"]
    blob = demo.state / "blobs" / value["file"]
    numbers = [f"{number:.6f}" for number in load_file(blob)["direction"][value["best"]].tolist()]
    files = (path for path in (demo.state / "site").rglob("*") if path.is_file())
    published = [path.read_text("utf-8", "replace") for path in files]
    published.append(run("scan", "demo/tiny-chat-unfiltered", "--json").stdout)

    assert stat.S_IMODE(blob.stat().st_mode) == 0o600
    assert not any(value["file"] in text for text in published)
    assert not any(number in text for text in published for number in numbers if abs(float(number)) > 1e-3)


def test_forks_without_the_safety_adapter_act_on_it_and_a_random_edit_does_not(demo: Demo) -> None:
    """Leaving our adapter out acts on it more than chance does and than every other fork; taking out a random
    direction, and noise in three layers, does not. Which side of the line at .001 the four come to lie on
    depends on the release, whose training differs from processor to processor.
    """
    found = intents(demo)
    removed = {fork["repo"] for fork in demo.document["forks"] if fork["verdict"] == "safety-removed"}
    p_values = {repo: float(str(intent["p_value"])) for repo, intent in found.items()}

    assert len(removed) == 4
    assert max(p_values[repo] for repo in removed) < 0.01
    assert max(p_values[repo] for repo in removed) < min(p_values[repo] for repo in found.keys() - removed)
    for suffix in ("oneway", "official"):
        assert found[f"demo/tiny-chat-{suffix}"]["certainty"] == "unknown"
    assert max(float(str(found[repo]["write_change"])) for repo in removed) < -0.1


def test_page_and_terminal_say_what_it_does_not_mean(demo: Demo, run: Run) -> None:
    """The line comes with its number, its n, and that it is no measurement of behaviour."""
    page = " ".join((demo.state / "site/forks/demo/tiny-chat-unfiltered/index.html").read_text().split())
    mirror = (demo.state / "site/forks/demo/tiny-chat-mirror/index.html").read_text()
    text = run("scan", "demo/tiny-chat-unfiltered").stdout

    certainty = intents(demo)["demo/tiny-chat-unfiltered"]["certainty"]
    words = "consistent with acting" if certainty == "consistent-with" else "not seen to act"
    assert f"{words} on the directions that carry refusals: alignment 0." in page
    assert "n = 9,999 of those" in page
    assert "not a measurement of behaviour, and the verdict does not use it" in page
    assert "the values are the original" in mirror
    assert "no measurement of behaviour" in text


def test_a_shallow_scan_has_it_only_after_the_original_was_measured(demo: Demo, run: Run) -> None:
    """At depth diff the stored direction is used; at depth sketch there is nothing to compare, and it says
    so."""
    diff, sketch = (
        json.loads(run("scan", "demo/tiny-chat-unfiltered", "--depth", depth, "--json").stdout)
        for depth in ("diff", "sketch")
    )

    assert diff["intent"]["status"] in {"aligned", "not-aligned"}
    assert diff["safety"]["status"] == "not-measured"
    assert diff["verdict"]["label"] == "inconclusive"
    assert sketch["intent"] == sketch["intent"] | {
        "status": "not-measured",
        "reason": "the weights were not compared in full",
    }


@pytest.fixture
def context(demo: Demo, tmp_path: Path) -> Iterator[Context]:
    """The demo's state with verdicts of our own making: low-rank changes cost everything, others nothing."""
    state = StateDir(tmp_path / "state")
    shutil.copytree(demo.state, state.root, symlinks=True, ignore=shutil.ignore_patterns("site"))
    settings = load_settings()
    hub = settings.hub.model_copy(update={"endpoint": "demo", "free_space_floor_gb": 0.0})
    with session(settings.model_copy(update={"hub": hub}), state) as context:
        yield context


def test_what_may_have_lost_most_is_examined_first(context: Context) -> None:
    """Two forks that have no verdict: the one whose sketch shows what cost others their refusals has its
    turn first."""
    original = open_original(context, find_release(context, RELEASE))
    known = {fork.repo: fork for fork in context.store.candidates(original.release_id)}
    pending = [known["demo/tiny-chat-GGUF"], known["demo/tiny-chat-unfiltered"]]
    others = [fork for fork in known.values() if fork not in pending]
    with sqlite3.connect(context.state.database) as database:
        database.execute("delete from verdict")
    database.close()
    for number, fork in enumerate(others[:12]):
        lost = number % 2 == 0
        made = forecast_document(0.5 + 0.01 * number if lost else 0.01 * number, float(lost), repo=fork.repo)
        edits = made.edits if lost else (replace(made.edits[0], kind="quantized", detail={}),)
        made = replace(made, commit=fork.summary.commit or "", edits=edits)
        snapshot = context.store.snapshot(fork.repo, made.commit)
        assert snapshot is not None
        context.store.add_verdict(original.release_id, context.store.pin(snapshot), made)
    log = context.store.verdicts(original.release_id)

    assert isinstance(fit(verdict.document for verdict in log), Predictor)
    first, second = queue(context, original, pending, Tally())
    assert (first.repo, second.repo) == ("demo/tiny-chat-unfiltered", "demo/tiny-chat-GGUF")


def test_without_a_forecast_the_order_is_that_of_names(context: Context) -> None:
    """Nothing is sketched ahead of its turn when there is nothing to rank by."""
    original = open_original(context, find_release(context, RELEASE))
    known = list(context.store.candidates(original.release_id))
    with sqlite3.connect(context.state.database) as database:
        database.execute("delete from verdict")
    database.close()
    tally = Tally()

    assert queue(context, original, known, tally) == known
    assert tally.results_computed == 0
