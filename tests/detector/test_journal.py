"""A diff that was killed goes on where it was, and says what an uninterrupted one says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from crawler.local import LocalFile
from detector.diff import diff_weights
from detector.formats import open_weights
from detector.interface import Diff, WeightReader
from detector.journal import FileJournal, open_journal
from tests.detector import zoo

SEED = 3
SHAPE = zoo.Shape(hidden=32, inter=64, layers=3, vocab=64)


class KilledError(Exception):
    """Stands for the process that dies."""


def sides() -> tuple[WeightReader, WeightReader]:
    original = zoo.base(SEED, SHAPE)
    edited = zoo.lora(original, SEED + 1, 4, 0.02)
    return open_weights(zoo.one_file(original)), open_weights(zoo.one_file(edited))


def on_disk(path: Path, weights: zoo.Weights) -> WeightReader:
    path.write_bytes(zoo.safetensors_bytes(weights))
    return open_weights({"model.safetensors": LocalFile(path)})


def bytes_aside(diff: Diff) -> Diff:
    return replace(diff, bytes_read=0)


def test_a_killed_diff_goes_on_where_it_was(tmp_path: Path) -> None:
    """The same diff as without interruption, and the tensors that were done are not read again."""
    whole = diff_weights(*sides())
    seen: list[str] = []

    def killed_midway(name: str, done: int, total: int) -> None:
        seen.append(name)
        if done > total / 2:
            raise KilledError

    with pytest.raises(KilledError), open_journal(tmp_path / "journal", *sides()) as journal:
        diff_weights(*sides(), progress=killed_midway, journal=journal)
    original, fork = sides()
    done = sum(original.tensors()[name].nbytes + fork.tensors()[name].nbytes for name in seen)
    with open_journal(tmp_path / "journal", original, fork) as journal:
        resumed = diff_weights(original, fork, journal=journal)
    assert bytes_aside(resumed) == bytes_aside(whole)
    assert done > 0
    assert resumed.bytes_read <= whole.bytes_read - done


def test_a_finished_diff_is_recalled_as_it_was(tmp_path: Path) -> None:
    """With a full journal no tensor is compared, and nothing changes, exponents and floors included."""
    for _ in range(2):
        with open_journal(tmp_path / "journal", *sides()) as journal:
            diff = diff_weights(*sides(), journal=journal)
    assert bytes_aside(diff) == bytes_aside(diff_weights(*sides()))
    assert any(tensor.exponents and tensor.floor_ratio for tensor in diff.tensors)


def test_other_files_start_a_new_journal(tmp_path: Path) -> None:
    """Other weights under the same headers, or other bytes by the caller's word: nothing is recalled."""
    original, fork = (on_disk(tmp_path / str(seed), zoo.base(seed, SHAPE)) for seed in (1, 2))
    path = tmp_path / "journal"
    for left, right, identity, known in (
        (original, fork, "as of noon", {"x": 1}),
        (original, fork, "as of one", None),
        (original, original, "as of noon", None),
        (fork, original, "as of noon", None),
    ):
        with open_journal(path, original, fork, "as of noon") as journal:
            journal.record("a", {"x": 1})
        with open_journal(path, left, right, identity) as journal:
            assert journal.recall("a") == known


@pytest.mark.parametrize("cut", range(2, 60, 7))
def test_a_torn_last_line_is_ignored(cut: int, tmp_path: Path) -> None:
    """What was whole is recalled, what was torn is not, and the next record is not spoiled by it."""
    path = tmp_path / "journal"
    with FileJournal(path, "key") as journal:
        journal.record("first", {"x": 1.5})
        journal.record("second", {"x": 2.5})
    path.write_bytes(path.read_bytes()[:-cut])
    with FileJournal(path, "key") as journal:
        assert journal.recall("first") == {"x": 1.5}
        assert journal.recall("second") is None
        journal.record("third", {"x": 3.5})
    with FileJournal(path, "key") as journal:
        assert journal.recall("first") == {"x": 1.5}
        assert journal.recall("third") == {"x": 3.5}


def test_an_altered_line_is_compared_again(tmp_path: Path) -> None:
    """A line that does not match its checksum is as good as none; those around it are believed."""
    path = tmp_path / "journal"
    with FileJournal(path, "key") as journal:
        for name in ("first", "second", "third"):
            journal.record(name, {"x": 1})
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b'"x": 1', b'"x": 2')
    path.write_bytes(b"\n".join(lines))
    with FileJournal(path, "key") as journal:
        assert journal.recall("first") == journal.recall("third") == {"x": 1}
        assert journal.recall("second") is None


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\n", b"{}\n", b"x" * 100, b"0 [1]\n\n"])
def test_a_file_that_is_no_journal_is_replaced(content: bytes, tmp_path: Path) -> None:
    """Whatever lies at the path, the journal starts empty and works."""
    path = tmp_path / "journal"
    path.write_bytes(content)
    with FileJournal(path, "key") as journal:
        assert journal.recall("a") is None
        journal.record("a", {"x": 1})
    with FileJournal(path, "key") as journal:
        assert journal.recall("a") == {"x": 1}


def test_a_record_of_another_form_is_compared_again(tmp_path: Path) -> None:
    """Fields that are missing or strange do not reach the diff."""
    original, fork = sides()
    with open_journal(tmp_path / "journal", original, fork) as journal:
        diff_weights(original, fork, journal=journal)
        records = {name: dict(outcome) for name, outcome in journal.records().items()}
        broken: list[dict[str, object]] = [
            {"status": "nonsense"},
            {"x": 1},
            {"exponents": None},
            {"relative_norm": "x"},
            {"scheme": 5},
        ]
        for index, (name, outcome) in enumerate(records.items()):
            journal.record(name, {**outcome, **broken[index % 5]} if index % 4 else {})
    with open_journal(tmp_path / "journal", original, fork) as journal:
        again = diff_weights(original, fork, journal=journal)
    assert bytes_aside(again) == bytes_aside(diff_weights(*sides()))
