"""`forkwatch diff`: any two of folder, file and repository, at both depths, and whatever can be wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from typer.testing import Result

from forkwatch.demo.hub import Fault, LoopbackHub
from forkwatch.pipeline.context import Silent
from forkwatch.pipeline.pair import PairDepth, compare_checkpoints
from forkwatch.pipeline.sides import LocalSide, open_local
from forkwatch.state import StateDir
from reports.diff import from_json, json_schema
from tests.detector import zoo
from tests.forkwatch.conftest import invoke
from tests.forkwatch.pair.conftest import BASE, FORK, write

NOWHERE = "http://127.0.0.1:9"
MIRROR, PATCHED = "someone/base-mirror", "someone/base-patched"


def _diff(state: Path, *arguments: str | Path, endpoint: str = NOWHERE) -> Result:
    environment = {"FORKWATCH_HUB__ENDPOINT": endpoint, "FORKWATCH_HUB__RETRIES": "0"}
    return invoke(state, "diff", *map(str, arguments), **environment)


def _document(done: Result) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(document, json_schema())
    from_json(done.stdout)
    return document


def _complaints(done: Result) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("forkwatch:")]


def test_two_folders(models: Path, tmp_path: Path) -> None:
    """Local checkpoints are compared in full, without a Hub and without a state folder."""
    done = _diff(tmp_path / "state", models / "base", models / "abliterated", "--json")

    document = _document(done)
    assert done.exit_code == 0, done.stderr
    assert document["depth"] == "full"
    assert [edit["kind"] for edit in document["edits"]] == ["directional-edit"]
    assert document["cost"]["requests"] == document["cost"]["bytes_downloaded"] == 0
    assert document["cost"]["bytes_read"] > 0
    assert not (tmp_path / "state" / "forkwatch.db").exists()


def test_picture_for_a_person(models: Path, tmp_path: Path) -> None:
    """The text names the edit, draws the touched modules and no others, and says what was not measured."""
    done = _diff(tmp_path, models / "base", models / "abliterated")

    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.split()}
    assert "edit: directional-edit (proved)" in done.stdout
    assert rows["q_proj"] == ["="] * 4
    assert set("".join(rows["o_proj"])) <= set("·▁▂▃▄▅▆▇█")
    assert "\x1b" not in done.stdout
    assert "not measured\n  - What the changes do" in done.stdout


def test_json_and_picture_do_not_mix(models: Path, tmp_path: Path) -> None:
    """With `--json` stdout is one document and nothing else; the SVG goes to its file all the same."""
    svg = tmp_path / "picture.svg"

    done = _diff(tmp_path, models / "base", models / "abliterated", "--json", "--svg", svg)

    _document(done)
    assert ET.parse(svg).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert [path.name for path in tmp_path.iterdir()] == ["picture.svg"]


def test_identical_folders(models: Path, tmp_path: Path) -> None:
    """A checkpoint and itself: identical when every byte was compared, never proved from a sample."""
    copy = shutil.copytree(models / "base", tmp_path / "copy")
    full = _diff(tmp_path, models / "base", copy, "--json")
    sketch = _diff(tmp_path, models / "base", copy, "--json", "--depth", "sketch")

    assert [edit["kind"] for edit in _document(full)["edits"]] == ["identical"]
    assert full.exit_code == 0
    assert [(edit["kind"], edit["certainty"]) for edit in _document(sketch)["edits"]] == [
        ("identical", "consistent-with")
    ]
    assert sketch.exit_code == 3


def test_the_same_file_twice(models: Path, tmp_path: Path) -> None:
    """A hard link is the file itself: proved without reading a row."""
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "model.safetensors").hardlink_to(models / "base" / "model.safetensors")

    done = _diff(tmp_path, models / "base", tmp_path / "link", "--json", "--depth", "sketch")

    document = _document(done)
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

    copy = _diff(tmp_path, BASE, MIRROR, "--json", endpoint=hub.endpoint)
    patched = _diff(tmp_path, BASE, PATCHED, "--json", endpoint=hub.endpoint)

    document = _document(copy)
    assert [(edit["kind"], edit["certainty"]) for edit in document["edits"]] == [("identical", "proved")]
    assert copy.exit_code == 0, copy.stderr
    assert "identical" not in {edit["kind"] for edit in _document(patched)["edits"]}


def test_single_files(models: Path, tmp_path: Path) -> None:
    """A safetensors file against a GGUF file of the same values, each named by itself."""
    write(tmp_path / "gguf", zoo.gguf_file(zoo.base(1), "Q8_0", tmp_path))
    gguf = next((tmp_path / "gguf").iterdir())

    document = _document(_diff(tmp_path, models / "base" / "model.safetensors", gguf, "--json"))

    assert [edit["kind"] for edit in document["edits"]] == ["quantized"]


def test_adapter_file(models: Path, tmp_path: Path) -> None:
    """A PEFT adapter is read with the configuration that lies beside it."""
    done = _diff(tmp_path, models / "base", models / "lora" / "adapter_model.safetensors", "--json")

    assert [edit["kind"] for edit in _document(done)["edits"]] == ["adapter"]


@pytest.mark.parametrize("depth", ["sketch", "full"])
def test_adapter_beside_the_weights(models: Path, tmp_path: Path, depth: str) -> None:
    """An adapter beside full weights is applied when they are loaded, so it is never overlooked."""
    done = _diff(tmp_path, models / "base", models / "both", "--json", "--depth", depth)

    assert "adapter" in [edit["kind"] for edit in _document(done)["edits"]]


def test_adapter_beside_the_base_is_said(models: Path, tmp_path: Path) -> None:
    """One beside the base is not applied, and the document says so."""
    document = _document(_diff(tmp_path, models / "both", models / "base", "--json"))

    assert any("adapter beside" in gap for gap in document["not_measured"])


@pytest.mark.parametrize("fork", ["lora", "base"])
def test_adapter_cannot_be_the_base(models: Path, tmp_path: Path, fork: str) -> None:
    """An adapter without its model is refused as the first side: every fork would seem unrelated to it."""
    done = _diff(tmp_path, models / "lora", models / fork)

    assert done.exit_code == 2
    assert len(_complaints(done)) == 1


def test_repositories_are_sketched(hub: LoopbackHub, tmp_path: Path) -> None:
    """Nothing is downloaded unless asked for; the cost is what the Hub saw."""
    done = _diff(tmp_path, BASE, f"{FORK}@main", "--json", endpoint=hub.endpoint)

    document, cost = _document(done), _document(done)["cost"]
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
    cost = _document(_diff(tmp_path, BASE, FORK, "--json", endpoint=hub.endpoint))["cost"]

    assert cost["bytes_downloaded"] == 2 * (models / "base" / "model.safetensors").stat().st_size


def test_repository_in_full(hub: LoopbackHub, models: Path, tmp_path: Path) -> None:
    """`--depth full` fetches the files that make the checkpoint, and agrees with the local diff."""
    remote = _document(
        _diff(tmp_path, models / "base", FORK, "--json", "--depth", "full", endpoint=hub.endpoint)
    )
    local = _document(_diff(tmp_path, models / "base", models / "abliterated", "--json"))

    assert remote["edits"] == local["edits"]
    assert remote["tensors"] == local["tensors"]
    assert remote["cost"]["bytes_downloaded"] == (models / "abliterated" / "model.safetensors").stat().st_size
    assert not any("consolidated" in request.path for request in hub.requests)


def test_one_file_of_a_repository(hub: LoopbackHub, models: Path, tmp_path: Path) -> None:
    """`ORG/NAME@REVISION:path` is that file at that revision, whatever else the repository holds."""
    commit = hub.commit(FORK, {"old/epoch1.safetensors": models / "tuned" / "model.safetensors"})
    hub.commit(FORK, {"old/epoch1.safetensors": models / "other" / "model.safetensors"})
    side = f"{FORK}@{commit}:old/epoch1.safetensors"

    done = _diff(tmp_path, models / "base", side, "--json", "--depth", "full", endpoint=hub.endpoint)

    document = _document(done)
    assert [edit["kind"] for edit in document["edits"]] == ["full-finetune"]
    assert document["fork_commit"] == commit


def test_fail_on(models: Path, tmp_path: Path) -> None:
    """`--fail-on` compares the edits' findings; values that were kept are no concern."""
    changed = models / "base", models / "abliterated"

    assert _diff(tmp_path, *changed, "--fail-on", "high").exit_code == 1
    assert _diff(tmp_path, *changed, "--fail-on", "critical").exit_code == 0
    assert _diff(tmp_path, models / "base", models / "base", "--fail-on", "info").exit_code == 0


def test_unrelated_models(models: Path, tmp_path: Path) -> None:
    """Two models of one architecture that do not descend from each other are said to be unrelated."""
    document = _document(_diff(tmp_path, models / "base", models / "other", "--json"))

    assert document["lineage"]["status"] == "unrelated"


BAD = {
    "": 2,
    "no/such/folder": 2,
    "./missing": 2,
    "missing.safetensors": 2,
    "https://huggingface.co/lab/base": 2,
    "~no-such-user/model": 2,
    "lab/base@": 2,
    "lab/base:": 2,
    "x" * 5000: 2,
    "nul\0byte": 2,
    "lab/nothing-there": 4,
    "lab/base@no-such-branch": 4,
    "lab/base:no/such.safetensors": 4,
}


@pytest.mark.parametrize("side", BAD, ids=lambda side: ascii(side[:40]))
def test_bad_sides(hub: LoopbackHub, models: Path, tmp_path: Path, side: str) -> None:
    """Whatever cannot be a checkpoint is one clear line and a row of the table, on either side."""
    for pair in ((models / "base", side), (side, models / "base")):
        done = _diff(tmp_path / "state", *pair, endpoint=hub.endpoint)

        assert done.exit_code == BAD[side], done.stderr
        assert len(_complaints(done)) == 1
        assert done.stdout == ""


def _spoiled(folder: Path, kind: str) -> Path:
    """A path that exists and holds no weights."""
    folder.mkdir()
    whole = zoo.safetensors_bytes(zoo.base(1))
    contents = {
        "empty": {},
        "pickle": {"pytorch_model.bin": b"\x80\x04."},
        "pointer": {
            "model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
        },
        "truncated": {"model.safetensors": whole[:-100]},
        "no bytes": {"model.safetensors": b""},
        "lone config": {"adapter_model.safetensors": whole},
        "index only": {"model.safetensors.index.json": b'{"weight_map": {}}'},
    }[kind]
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    "kind", ["empty", "pickle", "pointer", "truncated", "no bytes", "lone config", "index only"]
)
def test_folders_without_weights(models: Path, tmp_path: Path, kind: str) -> None:
    """A folder that holds no readable weights is one line that names it, and nothing to examine."""
    done = _diff(tmp_path / "state", models / "base", _spoiled(tmp_path / "side", kind))

    assert done.exit_code == 3, done.stderr
    assert len(_complaints(done)) == 1
    assert str(tmp_path / "side") in done.stderr


def test_side_that_is_no_file(models: Path, tmp_path: Path) -> None:
    """A pipe with the name of a weight file is refused, not waited for."""
    os.mkfifo(tmp_path / "pipe.safetensors")

    assert _diff(tmp_path, models / "base", tmp_path / "pipe.safetensors").exit_code == 2


def test_picture_that_cannot_be_written(models: Path, tmp_path: Path) -> None:
    """A place that cannot hold the SVG is refused before anything is compared."""
    for target in (tmp_path, tmp_path / "missing" / "x.svg"):
        done = _diff(tmp_path, models / "base", models / "abliterated", "--svg", target)

        assert done.exit_code == 2
        assert done.stdout == ""


def test_interrupt(hub: LoopbackHub, models: Path, tmp_path: Path) -> None:
    """Ctrl-C ends with 130 and says how to go on, in one line and without a traceback."""
    hub.inject(Fault("info", "stall", times=-1))
    command = [sys.executable, "-m", "forkwatch", "diff", str(models / "base"), FORK]
    environment = {
        **os.environ,
        "FORKWATCH_STATE_DIR": str(tmp_path),
        "FORKWATCH_HUB__ENDPOINT": hub.endpoint,
        "HF_TOKEN": "",
    }
    child = subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has them, and their children, ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one thread forks
    )
    try:
        deadline = time.monotonic() + 60
        while not hub.requests and time.monotonic() < deadline:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        _, stderr = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()

    assert child.returncode == 130
    assert [line for line in stderr.splitlines() if "interrupted" in line and "same command" in line]
    assert "Traceback" not in stderr


class _Impatient(Silent):
    """Somebody who presses Ctrl-C after a few tensors."""

    def __init__(self, patience: int) -> None:
        self.left = patience

    def progress(self, what: str, done: int, total: int) -> None:
        self.left -= 1
        if self.left <= 0:
            raise KeyboardInterrupt


def test_interrupted_diff_goes_on(models: Path, tmp_path: Path) -> None:
    """The same command takes up what an interrupted one had compared, ends with the same document, and leaves
    no journal behind; another fork under the same headers takes up nothing."""
    state, base = StateDir(tmp_path / "state"), models / "base"
    sides = open_local(LocalSide("a", base)), open_local(LocalSide("b", models / "abliterated"))
    with pytest.raises(KeyboardInterrupt):
        compare_checkpoints(sides, PairDepth.FULL, state, _Impatient(12))
    assert len(list(state.journals.iterdir())) == 1

    other = _diff(state.root, base, models / "tuned", "--json")
    again = _diff(state.root, base, models / "abliterated", "--json")
    fresh = _diff(tmp_path / "fresh", base, models / "abliterated", "--json")

    assert "known from an interrupted run" not in other.stderr
    assert [edit["kind"] for edit in _document(other)["edits"]] == ["full-finetune"]
    assert "known from an interrupted run" in again.stderr
    assert _document(again) | {"cost": 0} == _document(fresh) | {"cost": 0}
    assert not state.journals.exists()


def test_state_folder_that_cannot_be_written(models: Path, tmp_path: Path) -> None:
    """Without a place for a journal the comparison is made all the same, and that is said."""
    (tmp_path / "file").write_text("")

    done = _diff(tmp_path / "file", models / "base", models / "abliterated", "--json")

    assert done.exit_code == 0
    assert "an interrupted comparison starts again" in done.stderr


def test_reader_who_goes_away(models: Path, tmp_path: Path) -> None:
    """`| head` is neither a finding nor a bug of ours: 141, and silence."""
    for command in (["diff", str(models / "base"), str(models / "base")], ["status", "--json"]):
        child = subprocess.Popen(
            [sys.executable, "-m", "forkwatch", *command],
            env={**os.environ, "FORKWATCH_STATE_DIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        child.stdout.close()
        assert child.stderr is not None
        stderr = child.stderr.read()
        child.stderr.close()

        assert (child.wait(timeout=60), stderr) == (141, "")
