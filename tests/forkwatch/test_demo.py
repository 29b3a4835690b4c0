"""The main job, end to end, on the tiny family: real client, real signature, real forward passes."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import jsonschema
import pytest

from reports.document import json_schema
from tests.forkwatch.conftest import RELEASE, Demo, Run


def test_every_fork_is_recognised_as_built(demo: Demo) -> None:
    """Edits, lineage and verdict agree with the ground truth for every fork, and no decoy got a verdict."""
    wrong = [fork for fork in demo.document["forks"] if not fork["agrees"]]

    assert wrong == []
    assert len(demo.document["forks"]) >= 15
    assert demo.exit_code == 0


def test_demo_document_has_its_schema(demo: Demo) -> None:
    """The document says what it is, and where the site lies."""
    assert demo.document["schema"] == "forkwatch.demo/1"
    assert Path(demo.document["site"]).is_file()


def test_second_run_makes_no_download_and_no_evaluation(demo: Demo, run: Run) -> None:
    """All results are keyed; the same snapshots cost nothing again, and the site keeps its bytes."""
    site = demo.state / "site"
    before = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}

    done = run("run", "--once", "--json")

    tally = json.loads(done.stdout)
    assert done.exit_code == 0, done.stderr
    assert (
        tally["evaluations"] == tally["diffs"] == tally["results_computed"] == tally["bytes_downloaded"] == 0
    )
    assert tally["verdicts_changed"] == 0
    assert tally["results_reused"] > 0
    assert {path: path.read_bytes() for path in site.rglob("*") if path.is_file()} == before


def test_scan_of_every_fork_validates(demo: Demo, run: Run) -> None:
    """`forkwatch scan --json` of each fork is a valid `forkwatch.scan/1` document with the demo's verdict."""
    schema = json_schema()
    for fork in demo.document["forks"]:
        done = run("scan", fork["repo"], "--json")

        document = json.loads(done.stdout)
        jsonschema.validate(document, schema)
        assert document["verdict"]["label"] == fork["verdict"]
        assert done.exit_code in (0, 1, 3)


def test_scan_for_a_person_names_what_matters(demo: Demo, run: Run) -> None:
    """The text output leads with the verdict and lists the findings."""
    removed = next(fork for fork in demo.document["forks"] if fork["verdict"] == "safety-removed")

    done = run("scan", removed["repo"])

    assert done.stdout.splitlines()[0].endswith("safety-removed (consistent-with)")
    assert "critical safety-removed" in done.stdout
    assert done.exit_code == 1
    assert run("scan", removed["repo"], "--fail-on", "critical", "--depth", "diff").exit_code in (0, 3)


def test_shallow_scans_say_what_was_not_measured(demo: Demo, run: Run) -> None:
    """Each depth stops where it says, and never gives a safety verdict."""
    removed = next(fork["repo"] for fork in demo.document["forks"] if fork["verdict"] == "safety-removed")
    for depth in ("match", "sketch", "diff"):
        document = json.loads(run("scan", removed, "--depth", depth, "--json").stdout)

        assert document["verdict"]["label"] == "inconclusive"
        assert document["safety"]["status"] == "not-measured"
        assert document["verdict"]["not_measured"]


def test_status_counts_verdicts_and_gaps(demo: Demo, run: Run) -> None:
    """Status says how many forks have which verdict."""
    document = json.loads(run("status", "--json").stdout)

    counts = document["releases"][0]["verdicts"]
    assert sum(counts.values()) == len(demo.document["forks"])
    assert "lab/tiny-chat" in run("status").stdout


def test_crawl_reports_channels(demo: Demo, run: Run) -> None:
    """Discovery finds every fork again, with the channels of the ground truth."""
    found = json.loads(run("crawl", "--json").stdout)
    channels = {candidate["repo"]: set(candidate["channels"]) for candidate in found["candidates"]}
    truth = json.loads((demo.family / "ground_truth.json").read_text())

    for fork in truth["forks"]:
        assert set(fork["discoverable_by"]) <= channels[fork["repo"]]
    assert "candidates for lab/tiny-chat" in run("crawl").stdout


def test_diff_of_two_repositories(demo: Demo, run: Run) -> None:
    """`forkwatch diff` names the edit between any two checkpoints, as text and as JSON."""
    fork = next(fork for fork in demo.document["forks"] if fork["edits"] == ["directional-edit"])

    document = json.loads(run("diff", RELEASE, fork["repo"], "--json").stdout)

    assert document["schema"] == "forkwatch.diff/1"
    assert [edit["kind"] for edit in document["edits"]] == ["directional-edit"]
    assert "edit: directional-edit" in run("diff", RELEASE, fork["repo"]).stdout


def test_diff_of_two_folders(demo: Demo, run: Run) -> None:
    """Local folders need neither a Hub nor a state folder."""
    release = demo.family / "repos" / RELEASE

    done = run("diff", str(release), str(release), "--json", FORKWATCH_HUB__ENDPOINT="http://127.0.0.1:9")

    assert done.exit_code == 0, done.stderr
    assert [edit["kind"] for edit in json.loads(done.stdout)["edits"]] == ["identical"]


def test_release_list_and_verify(run: Run) -> None:
    """The guarded release is listed and verifies."""
    assert json.loads(run("release", "list", "--json").stdout)["releases"][0]["repo"] == RELEASE
    assert RELEASE in run("release", "list").stdout
    verified = json.loads(run("release", "verify", RELEASE, "--json").stdout)
    assert verified["releases"][0]["signature"] == "verified"
    assert run("release", "verify").exit_code == 0


def test_report_build_to_another_folder(run: Run, tmp_path: Path) -> None:
    """A site can be built elsewhere, from stored verdicts alone."""
    done = run("report", "build", "--out", str(tmp_path / "site"))

    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "site" / "index.html").is_file()
    assert (tmp_path / "site" / "verdicts.json").is_file()


def test_raw_answers_stay_private(demo: Demo) -> None:
    """Transcripts are 0600, and no answer of one appears on the site or in the digest."""
    blobs = list((demo.state / "blobs").iterdir())
    answers: set[str] = set()
    for blob in blobs:
        assert stat.S_IMODE(blob.stat().st_mode) == 0o600
        text = blob.read_bytes()
        if text.startswith(b"{") and "greedy" in (content := json.loads(text)):
            answers |= {answer for answer in content["greedy"].values() if len(answer) > 20}
    published = "\n".join(
        path.read_text("utf-8", "ignore") for path in (demo.state / "site").rglob("*") if path.is_file()
    )

    assert answers
    assert [answer for answer in answers if answer in published] == []


def test_doctor_is_content(run: Run) -> None:
    """On a machine where the demo ran, doctor finds nothing wrong."""
    document = json.loads(run("doctor", "--json").stdout)

    assert {check["name"]: check["ok"] for check in document["checks"]} == dict.fromkeys(
        [check["name"] for check in document["checks"]], True
    )
    assert run("doctor").exit_code == 0


@pytest.mark.parametrize(
    "command", ["run", "scan demo/x --depth deep", "demo --family huge", "release add lab/x"]
)
def test_wrong_arguments_exit_with_2(run: Run, command: str) -> None:
    """Usage errors have one exit code."""
    assert run(*command.split()).exit_code == 2
