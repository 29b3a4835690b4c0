"""`forkwatch suite import` and `suite show` through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from forkwatch.demo.hub import LoopbackHub
from tests.forkwatch.conftest import invoke

HARMFUL = "Goal,Target,Behavior,Category,Source\nDo a bad thing,Sure,b,Fraud,x\nDo another,Sure,b,Fraud,x\n"
BENIGN = "Goal,Target,Behavior,Category,Source\nDo a good thing,Sure,b,Fraud,x\n"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    for name, content in (("harmful.csv", HARMFUL), ("benign.csv", BENIGN)):
        (tmp_path / name).write_text(content)
    return str(tmp_path / "harmful.csv"), str(tmp_path / "benign.csv")


def test_import_and_show(files: tuple[str, str], tmp_path: Path) -> None:
    """Two files become one suite, that says what it asks; it is not written over."""
    output = tmp_path / "suite.json"
    done = invoke(tmp_path, "suite", "import", *files, "-o", str(output))
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("jailbreakbench@1 sha256:")
    assert "harmful.csv: 2 prompts, format jailbreakbench" in done.stderr
    shown = json.loads(invoke(tmp_path, "suite", "show", str(output), "--json").stdout)
    assert shown["schema"] == "forkwatch.suite/1"
    assert shown["digest"] == done.stdout.split()[1]
    assert shown["tiers"]["screen"] == {"harmful": 2, "benign-twin": 1, "utility": 0, "choices": 0}
    assert (shown["topics"], shown["languages"]) == ({"fraud": 3}, {"en": 3})
    again = invoke(tmp_path, "suite", "import", *files, "-o", str(output))
    assert (again.exit_code, "exists already" in again.stderr) == (2, True)


def test_the_built_in_suite(tmp_path: Path) -> None:
    """Is shown without a file; no prompt is printed."""
    done = invoke(tmp_path, "suite", "show")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("core@")
    assert "by topic" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("import", "gone.csv", "-o", "s.json"), "No such file"),
        (("import", "BENIGN", "-o", "s.json"), "all prompts are benign"),
        (("import", "HARMFUL", "-o", "s.json", "--id", "Not A Name"), "not in the allowed form"),
        (("show", "gone.json"), "No such file"),
    ],
)
def test_errors_are_one_line(
    files: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    """Exit code 2, and no file is left behind."""
    monkeypatch.chdir(tmp_path)
    names = {"HARMFUL": files[0], "BENIGN": files[1]}
    done = invoke(tmp_path, "suite", *(names.get(argument, argument) for argument in arguments))
    assert (done.exit_code, said in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "s.json").exists()


def test_files_of_a_dataset_are_fetched(files: tuple[str, str], tmp_path: Path) -> None:
    """Large files alone have a hash to pin them by; a Parquet copy is one, whatever its size."""
    table = tmp_path / "harmful.parquet"
    rows = [{"Goal": f"Do bad thing {n}", "Behavior": "b", "Category": "Fraud"} for n in range(2)]
    parquet.write_table(pa.Table.from_pylist(rows), table)
    hub = LoopbackHub()
    hub.create_dataset("acme/bench")
    hub.commit("datasets/acme/bench", {"data/harmful.parquet": table, "small.csv": HARMFUL.encode()})
    address = "hf://datasets/acme/bench/"
    with hub:
        environment = {"FORKWATCH_HUB__ENDPOINT": hub.endpoint, "FORKWATCH_HUB__RETRIES": "0"}
        output = str(tmp_path / "suite.json")
        given = ["suite", "import", f"{address}data/harmful.parquet", files[1], "-o", output]
        done = invoke(tmp_path, *given, **environment)
        absent = invoke(tmp_path, "suite", "import", f"{address}gone.csv", "-o", "x.json", **environment)
        small = invoke(tmp_path, "suite", "import", f"{address}small.csv", "-o", "x.json", **environment)
    assert done.exit_code == 0, done.stderr
    assert "harmful.parquet: 2 prompts" in done.stderr
    assert (absent.exit_code, small.exit_code) == (4, 4), absent.stderr + small.stderr
    assert "does not tell its commit, size and hash" in small.stderr
