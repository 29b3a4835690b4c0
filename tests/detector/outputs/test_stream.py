"""A stream counts each output once, goes on where it stopped, and loses nothing."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from detector.outputs.attribution import attribute
from detector.outputs.interface import (
    BadOutputsError,
    Decision,
    Output,
    RefusalBaseline,
    Sampling,
    Transcript,
)
from detector.outputs.likelihood import UNDECLARED, likelihoods
from detector.outputs.refusals import refusal_test
from detector.outputs.sequential import Stored, read_state, write_state
from detector.outputs.stream import (
    Reference,
    Stream,
    StreamError,
    begin,
    count,
    output_ids,
    require_same,
)
from tests.detector.outputs.chains import chain, drawn, fork_of, probabilities, scored

MODEL = chain(0)
FORKS = {"a/fork@1": fork_of(MODEL, 0.6, 1), "b/fork@1": fork_of(MODEL, 0.6, 2)}
A = "a/fork@1"
REFERENCE = Reference(
    release="lab/model@1",
    root_digest="sha256:00",
    transcripts=tuple(
        Transcript(
            model="authentic",
            engine="e",
            dtype=dtype,
            answers={f"g{i}": f"the same answer to {i}{' or so' if i == odd else ''}" for i in range(12)},
        )
        for dtype, odd in (("fp32", -1), ("bf16", 3))
    ),
    refusals=tuple(RefusalBaseline(prompt_id=f"r{i}", refused=10, n=10) for i in range(12)),
)
ROWS = scored(drawn(probabilities(FORKS[A]), 30, 10, 1), MODEL, FORKS)
GREEDY = [
    Output(prompt_id=f"g{i}", text="something else", sampling=Sampling(temperature=0.0)) for i in range(12)
]
REFUSALS = [Output(prompt_id=f"r{i}", text=None, refused=False, output_sha256="0" * 64) for i in range(12)]


def new() -> Stream:
    return begin(REFERENCE, FORKS)


def test_parts_count_as_the_whole() -> None:
    others = [*GREEDY, *REFUSALS]
    whole = count(new(), REFERENCE, ROWS, others)
    parts = new()
    for i in range(3):
        parts = count(parts, REFERENCE, ROWS[i * 10 : i * 10 + 10], others[i * 8 : i * 8 + 8])
    assert parts.n == whole.n == 30 + 12 + 12
    assert (parts.counted, parts.prompts) == (whole.counted, whole.prompts)
    assert parts.seen.forks[A] == pytest.approx(whole.seen.forks[A])
    assert parts.wealth.less == pytest.approx(whole.wealth.less)
    assert parts.greedy_log_e == pytest.approx(whole.greedy_log_e)
    expected = likelihoods(ROWS, UNDECLARED, FORKS)
    assert whole.seen.forks[A] == pytest.approx(expected.forks[A])
    assert attribute(whole.seen, passed=whole.peaks("likelihood-ratio")).named == A
    assert refusal_test(whole.wealth).decision is Decision.DIFFERENT


def test_nothing_counts_twice() -> None:
    """Not the same file again, not a part of it, not another answer to a probe whose baseline is used up."""
    others = [*GREEDY, *REFUSALS]
    once = count(new(), REFERENCE, ROWS, others)
    assert count(once, REFERENCE, ROWS, others) == once
    assert count(once, REFERENCE, ROWS[:7], others[5:]) == once
    assert count(once, REFERENCE, (), [replace(one, refused=True) for one in REFUSALS]) == once
    assert count(once, REFERENCE, (), [replace(one, text="again") for one in GREEDY]) == once


def test_an_answer_that_was_drawn_twice_has_two_ids() -> None:
    twice = [ROWS[0].output, ROWS[0].output]
    assert len(set(output_ids(twice))) == 2
    assert list(output_ids(twice)) == list(output_ids(twice))


def test_a_decision_stays() -> None:
    """The largest e-value so far decides, whatever comes after it."""
    decided = count(new(), REFERENCE, ROWS)
    authentic = scored(drawn(probabilities(MODEL), 120, 10, 9), MODEL, FORKS)
    later = count(decided, REFERENCE, authentic)
    assert attribute(later.seen).result.log_e != attribute(decided.seen).result.log_e
    assert later.passed["likelihood-ratio/authentic"] == decided.passed["likelihood-ratio/authentic"]
    assert attribute(later.seen, passed=later.peaks("likelihood-ratio")).result.decision is Decision.DIFFERENT


def test_state_file_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert read_state(path) == Stored(None, None)
    stream = count(new(), REFERENCE, ROWS, [*GREEDY, *REFUSALS])
    write_state(path, stream, read_state(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    stored = read_state(path)
    assert stored.stream == stream
    write_state(path, count(stream, REFERENCE, ROWS), stored)
    assert read_state(path).stream == stream
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]
    text = path.read_text()
    assert "w1" not in text, "no answer is in it"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw[: len(raw) // 2], "damaged"),
        (lambda raw: b"", "damaged"),
        (lambda raw: b"[]", "no stored stream"),
        (lambda raw: b"\xff\xfe", "damaged"),
        (lambda raw: raw.replace(b'"refused": 0', b'"refused": 5'), "digest"),
        (lambda raw: raw.replace(b"outputs-state/1", b"outputs-state/9"), "no stored stream"),
        (lambda raw: b"[" * 100_000, "damaged"),
    ],
)
def test_a_damaged_file_is_said_to_be_and_left_alone(tmp_path: Path, change: object, said: str) -> None:
    path = tmp_path / "state.json"
    write_state(path, count(new(), REFERENCE, ROWS[:3]), Stored(None, None))
    broken = change(path.read_bytes())  # type: ignore[operator]
    path.write_bytes(broken)
    with pytest.raises(StreamError, match=said):
        read_state(path)
    assert path.read_bytes() == broken


def test_a_stream_with_other_things_is_refused(tmp_path: Path) -> None:
    stream = count(new(), REFERENCE, ROWS[:3])
    require_same(stream, REFERENCE, reversed(FORKS))
    with pytest.raises(StreamError, match="about lab/model@1"):
        require_same(stream, replace(REFERENCE, release="lab/model@2", root_digest="sha256:01"), FORKS)
    with pytest.raises(StreamError, match="other forks"):
        require_same(stream, REFERENCE, [A])
    with pytest.raises(StreamError, match="other refusal baselines and transcripts"):
        require_same(stream, replace(REFERENCE, refusals=(), transcripts=()), FORKS)
    with pytest.raises(BadOutputsError, match="b/fork@1"):
        count(stream, REFERENCE, scored(drawn(probabilities(MODEL), 1, 5, 3), MODEL, {A: FORKS[A]}))


def test_of_two_runs_at_once_the_second_fails_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    first, second = read_state(path), read_state(path)
    write_state(path, count(new(), REFERENCE, ROWS[:3]), first)
    kept = path.read_bytes()
    with pytest.raises(StreamError, match="another run"):
        write_state(path, count(new(), REFERENCE, ROWS[3:6]), second)
    assert path.read_bytes() == kept


def test_unreadable_places(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="cannot read"):
        read_state(tmp_path)
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(StreamError, match="cannot read"):
        read_state(link)
    with pytest.raises(StreamError, match="cannot write"):
        write_state(tmp_path / "no" / "state.json", new(), Stored(None, None))


def test_a_stored_stream_has_no_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_state(path, count(new(), REFERENCE, ROWS, REFUSALS), Stored(None, None))
    stream = json.loads(path.read_text())["stream"]
    assert len(stream["counted"]) == len(set(stream["counted"])) == 30
