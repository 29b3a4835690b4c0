"""`forkwatch diff`: any two of folder, file and repository, at both depths."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from forkwatch.demo.hub import LoopbackHub
from tests.detector import zoo
from tests.forkwatch.pair.command import complaints, document_of, run_diff
from tests.forkwatch.pair.conftest import BASE, FORK, write

MIRROR, PATCHED = "someone/base-mirror", "someone/base-patched"


def test_two_folders(models: Path, tmp_path: Path) -> None:
    """Local checkpoints are compared in full, without a Hub and without a state folder."""
    done = run_diff(tmp_path / "state", models / "base", models / "abliterated", "--json")

    document = document_of(done)
    assert done.exit_code == 0, done.stderr
    assert document["depth"] == "full"
    assert [edit["kind"] for edit in document["edits"]] == ["directional-edit"]
    assert document["cost"]["requests"] == document["cost"]["bytes_downloaded"] == 0
    assert document["cost"]["bytes_read"] > 0
    assert not (tmp_path / "state" / "forkwatch.db").exists()


def test_picture_for_a_person(models: Path, tmp_path: Path) -> None:
    """The text names the edit, draws the touched modules and no others, and says what was not measured."""
    done = run_diff(tmp_path, models / "base", models / "abliterated")

    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.split()}
    assert "edit: directional-edit (proved)" in done.stdout
    assert rows["q_proj"] == ["="] * 4
    assert set("".join(rows["o_proj"])) <= set("·▁▂▃▄▅▆▇█")
    assert "\x1b" not in done.stdout
    assert "not measured\n  - What the changes do" in done.stdout


def test_json_and_picture_do_not_mix(models: Path, tmp_path: Path) -> None:
    """With `--json` stdout is one document and nothing else; the SVG goes to its file all the same."""
    svg = tmp_path / "picture.svg"

    done = run_diff(tmp_path, models / "base", models / "abliterated", "--json", "--svg", svg)

    document_of(done)
    assert ET.parse(svg).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert [path.name for path in tmp_path.iterdir()] == ["picture.svg"]


def test_identical_folders(models: Path, tmp_path: Path) -> None:
    """A checkpoint and itself: identical when every byte was compared, never proved from a sample."""
    copy = shutil.copytree(models / "base", tmp_path / "copy")
    full = run_diff(tmp_path, models / "base", copy, "--json")
    sketch = run_diff(tmp_path, models / "base", copy, "--json", "--depth", "sketch")

    assert [edit["kind"] for edit in document_of(full)["edits"]] == ["identical"]
    assert full.exit_code == 0
    assert [(edit["kind"], edit["certainty"]) for edit in document_of(sketch)["edits"]] == [
        ("identical", "consistent-with")
    ]
    assert sketch.exit_code == 3


def test_the_same_file_twice(models: Path, tmp_path: Path) -> None:
    """A hard link is the file itself: proved without reading a row."""
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "model.safetensors").hardlink_to(models / "base" / "model.safetensors")

    done = run_diff(tmp_path, models / "base", tmp_path / "link", "--json", "--depth", "sketch")

    document = document_of(done)
    assert [(edit["kind"], edit["certainty"]) for edit in document["edits"]] == [("identical", "proved")]
    assert (document["lineage"]["status"], document["unsampled"], done.exit_code) == ("proved", [], 0)
    assert document["cost"]["bytes_read"] < document["cost"]["bytes_total"] / 5


def test_copies_on_the_hub_are_proved_by_their_hashes(hub: LoopbackHub, models: Path, tmp_path: Path) -> None:
    """A mirror under another file name is identical; one changed byte of the weights is not overlooked."""
    weights = (models / "base" / "model.safetensors").read_bytes()
    hub.create_repo(MIRROR)
    hub.commit(MIRROR, {"renamed.safetensors": weights})
    hub.create_repo(PATCHED)
    hub.commit(PATCHED, {"model.safetensors": weights[:-1] + bytes([weights[-1] ^ 1])})

    copy = run_diff(tmp_path, BASE, MIRROR, "--json", endpoint=hub.endpoint)
    patched = run_diff(tmp_path, BASE, PATCHED, "--json", endpoint=hub.endpoint)

    document = document_of(copy)
    assert [(edit["kind"], edit["certainty"]) for edit in document["edits"]] == [("identical", "proved")]
    assert copy.exit_code == 0, copy.stderr
    assert "identical" not in {edit["kind"] for edit in document_of(patched)["edits"]}


def test_single_files(models: Path, tmp_path: Path) -> None:
    """A safetensors file against a GGUF file of the same values, each named by itself."""
    write(tmp_path / "gguf", zoo.gguf_file(zoo.base(1), "Q8_0", tmp_path))
    gguf = next((tmp_path / "gguf").iterdir())

    document = document_of(run_diff(tmp_path, models / "base" / "model.safetensors", gguf, "--json"))

    assert [edit["kind"] for edit in document["edits"]] == ["quantized"]


def test_adapter_file(models: Path, tmp_path: Path) -> None:
    """A PEFT adapter is read with the configuration that lies beside it."""
    done = run_diff(tmp_path, models / "base", models / "lora" / "adapter_model.safetensors", "--json")

    assert [edit["kind"] for edit in document_of(done)["edits"]] == ["adapter"]


@pytest.mark.parametrize("depth", ["sketch", "full"])
def test_adapter_beside_the_weights(models: Path, tmp_path: Path, depth: str) -> None:
    """An adapter beside full weights is applied when they are loaded, so it is never overlooked."""
    done = run_diff(tmp_path, models / "base", models / "both", "--json", "--depth", depth)

    assert "adapter" in [edit["kind"] for edit in document_of(done)["edits"]]


def test_adapter_beside_the_base_is_said(models: Path, tmp_path: Path) -> None:
    """One beside the base is not applied, and the document says so."""
    document = document_of(run_diff(tmp_path, models / "both", models / "base", "--json"))

    assert any("adapter beside" in gap for gap in document["not_measured"])


@pytest.mark.parametrize("fork", ["lora", "base"])
def test_adapter_cannot_be_the_base(models: Path, tmp_path: Path, fork: str) -> None:
    """An adapter without its model is refused as the first side: every fork would seem unrelated to it."""
    done = run_diff(tmp_path, models / "lora", models / fork)

    assert done.exit_code == 2
    assert len(complaints(done)) == 1


def test_repositories_are_sketched(hub: LoopbackHub, tmp_path: Path) -> None:
    """Nothing is downloaded unless asked for; the cost is what the Hub saw."""
    done = run_diff(tmp_path, BASE, f"{FORK}@main", "--json", endpoint=hub.endpoint)

    document, cost = document_of(done), document_of(done)["cost"]
    assert done.exit_code in (0, 3), done.stderr
    assert document["depth"] == "sketch"
    assert "--depth full" in done.stderr
    assert cost["requests"] == len(hub.requests) > 2
    assert cost["bytes_downloaded"] > 0
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.stat().st_size > 100_000]
    assert not any(request.range is None and request.origin == "cdn" for request in hub.requests)
    assert len(document["fork_commit"]) == 40
    assert {edit["certainty"] for edit in document["edits"]} <= {"consistent-with", "unknown"}


def test_what_fits_the_budget_is_read_once(hub: LoopbackHub, models: Path, tmp_path: Path) -> None:
    """The rounds of a sketch would fetch rows of a small checkpoint several times."""
    cost = document_of(run_diff(tmp_path, BASE, FORK, "--json", endpoint=hub.endpoint))["cost"]

    assert cost["bytes_downloaded"] == 2 * (models / "base" / "model.safetensors").stat().st_size


def test_repository_in_full(hub: LoopbackHub, models: Path, tmp_path: Path) -> None:
    """`--depth full` fetches the files that make the checkpoint, and agrees with the local diff."""
    remote = document_of(
        run_diff(tmp_path, models / "base", FORK, "--json", "--depth", "full", endpoint=hub.endpoint)
    )
    local = document_of(run_diff(tmp_path, models / "base", models / "abliterated", "--json"))

    assert remote["edits"] == local["edits"]
    assert remote["tensors"] == local["tensors"]
    assert remote["cost"]["bytes_downloaded"] == (models / "abliterated" / "model.safetensors").stat().st_size
    assert not any("consolidated" in request.path for request in hub.requests)


def test_one_file_of_a_repository(hub: LoopbackHub, models: Path, tmp_path: Path) -> None:
    """`ORG/NAME@REVISION:path` is that file at that revision, whatever else the repository holds."""
    commit = hub.commit(FORK, {"old/epoch1.safetensors": models / "tuned" / "model.safetensors"})
    hub.commit(FORK, {"old/epoch1.safetensors": models / "other" / "model.safetensors"})
    side = f"{FORK}@{commit}:old/epoch1.safetensors"

    done = run_diff(tmp_path, models / "base", side, "--json", "--depth", "full", endpoint=hub.endpoint)

    document = document_of(done)
    assert [edit["kind"] for edit in document["edits"]] == ["full-finetune"]
    assert document["fork_commit"] == commit


def test_fail_on(models: Path, tmp_path: Path) -> None:
    """`--fail-on` compares the edits' findings; values that were kept are no concern."""
    changed = models / "base", models / "abliterated"

    assert run_diff(tmp_path, *changed, "--fail-on", "high").exit_code == 1
    assert run_diff(tmp_path, *changed, "--fail-on", "critical").exit_code == 0
    assert run_diff(tmp_path, models / "base", models / "base", "--fail-on", "info").exit_code == 0


def test_unrelated_models(models: Path, tmp_path: Path) -> None:
    """Two models of one architecture that do not descend from each other are said to be unrelated."""
    document = document_of(run_diff(tmp_path, models / "base", models / "other", "--json"))

    assert document["lineage"]["status"] == "unrelated"
