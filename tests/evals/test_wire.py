"""The parent checks what a child reports: numbers, prompts and files that cannot be are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.behaviour import behaviour_of, unmeasured_behaviour
from evals.interface import (
    EvalRequest,
    EvaluationFailedError,
    Isolation,
    Label,
    Measured,
    PromptSuite,
    Transcript,
    Unmeasured,
)
from evals.judges.builtin import BuiltinJudge
from evals.suite import load_suite
from evals.wire import (
    MAX_TOLD,
    MAX_TRANSCRIPT,
    ChildReport,
    dump,
    load_report,
    load_request,
    load_transcript,
    write_transcript,
)


@pytest.fixture
def suite(suite_path: Path) -> PromptSuite:
    return load_suite(suite_path)


@pytest.fixture
def report(suite: PromptSuite) -> ChildReport:
    answers = {prompt.id: "I cannot help with that." for prompt in suite.prompts}
    return ChildReport(
        behaviour=behaviour_of(suite, BuiltinJudge(), answers),
        kl_per_token=Measured(0.2, 4, 0.1, 0.3),
        perplexity_ratio=Unmeasured("no transcript of the original was given"),
        isolation=Isolation.REDUCED,
        device="cpu",
        notes=("one", "two"),
    )


def test_a_report_survives_the_pipe(report: ChildReport, suite: PromptSuite) -> None:
    """What the child sends is what the parent gets, down to the types."""
    received = load_report(dump(report), suite)
    assert received == report
    assert received.behaviour.labels[0] == ("h0", Label.REFUSED)
    assert isinstance(received.isolation, Isolation)


def test_a_request_survives_the_pipe(tmp_path: Path) -> None:
    """What the parent sends is what the child gets."""
    request = EvalRequest(
        original=tmp_path / "a b",
        weights=(tmp_path / "ü.safetensors",),
        suite=tmp_path / "s.json",
        baseline_transcript=None,
        scratch=tmp_path,
        seed=7,
    )
    assert load_request(dump(request)) == request


def drop_a_label(document: dict[str, Any]) -> None:
    document["behaviour"]["labels"].pop()


def swap_labels(document: dict[str, Any]) -> None:
    document["behaviour"]["labels"].reverse()


def invent_a_label(document: dict[str, Any]) -> None:
    document["behaviour"]["labels"][0][1] = "safe"


def other_suite(document: dict[str, Any]) -> None:
    document["behaviour"]["suite_digest"] = "sha256:00"


def infinite(document: dict[str, Any]) -> None:
    document["kl_per_token"]["high"] = float("inf")


def upside_down(document: dict[str, Any]) -> None:
    document["behaviour"]["refusal"]["low"] = 2.0


def no_sample(document: dict[str, Any]) -> None:
    document["behaviour"]["refusal_by_topic"][0][1]["n"] = 0


def no_number(document: dict[str, Any]) -> None:
    document["behaviour"]["refusal"] = {}


def wrong_isolation(document: dict[str, Any]) -> None:
    document["isolation"] = "perfect"


LIES: list[Callable[[dict[str, Any]], None]] = [
    drop_a_label, swap_labels, invent_a_label, other_suite, infinite, upside_down, no_sample, no_number,
    wrong_isolation,
]  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_impossible_reports_are_refused(
    report: ChildReport, suite: PromptSuite, lie: Callable[[dict[str, Any]], None]
) -> None:
    """Other prompts, unknown labels and impossible numbers break the contract."""
    document = json.loads(dump(report))
    lie(document)
    with pytest.raises(EvaluationFailedError):
        load_report(json.dumps(document).encode(), suite)


def test_texts_of_a_report_are_short_printable_lines(report: ChildReport, suite: PromptSuite) -> None:
    """A child that a fork took over draws on no terminal and passes no answer on as a note."""
    gap = Unmeasured("no\x1b[2J\n number\u202e")
    received = load_report(dump(replace(report, notes=("x" * 5000,), kl_per_token=gap)), suite)
    assert received.notes == ("x" * MAX_TOLD,)
    assert received.kl_per_token == Unmeasured("no[2J number")


def test_a_report_without_labels_names_the_suite(report: ChildReport, suite: PromptSuite) -> None:
    """Nor does one about a misfit bring a text of its own in the suite's place."""
    misfit = replace(unmeasured_behaviour(suite, BuiltinJudge(), "misfit"), suite="mine@1")
    with pytest.raises(EvaluationFailedError, match="its labels do not give"):
        load_report(dump(replace(report, behaviour=misfit)), suite)


@settings(max_examples=25)
@given(raw=st.binary(max_size=200))
def test_noise_is_no_report(raw: bytes) -> None:
    """Arbitrary bytes are refused as a report, never anything else."""
    with pytest.raises(EvaluationFailedError):
        load_report(raw, PromptSuite("s", "1", (), "sha256:0"))


@settings(max_examples=25)
@given(
    greedy=st.dictionaries(st.text(), st.text()),
    sampled=st.dictionaries(st.text(), st.lists(st.text()).map(tuple)),
)
def test_a_transcript_round_trips(
    tmp_path_factory: pytest.TempPathFactory, greedy: dict[str, str], sampled: dict[str, tuple[str, ...]]
) -> None:
    """Any answers are read back as written."""
    path = tmp_path_factory.mktemp("t") / "transcript.json"
    write_transcript(path, Transcript(greedy={"old": "old"}, sampled={}))
    write_transcript(path, Transcript(greedy=greedy, sampled=sampled))
    assert load_transcript(path) == Transcript(greedy=greedy, sampled=sampled)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"schema": "forkwatch.transcript/2", "greedy": {}, "sampled": {}},
        {"schema": "forkwatch.transcript/1", "greedy": [], "sampled": {}},
        {"schema": "forkwatch.transcript/1", "greedy": {"a": 1}, "sampled": {}},
        {"schema": "forkwatch.transcript/1", "greedy": {}, "sampled": {"a": "b"}},
        {"schema": "forkwatch.transcript/1", "greedy": {}, "sampled": {"a": [None]}},
    ],
)
def test_what_is_no_transcript_is_refused(tmp_path: Path, document: object) -> None:
    """A transcript with another shape is refused."""
    (tmp_path / "t.json").write_text(json.dumps(document))
    with pytest.raises(EvaluationFailedError, match="not a transcript"):
        load_transcript(tmp_path / "t.json")


def test_unreadable_transcripts_are_refused(tmp_path: Path) -> None:
    """A missing, damaged or huge file is refused without reading it whole."""
    (tmp_path / "damaged").write_bytes(b"{\xff")
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(MAX_TRANSCRIPT + 1)
    for name in ("missing", "damaged", "huge"):
        with pytest.raises(EvaluationFailedError, match=name):
            load_transcript(tmp_path / name)


def test_a_report_without_labels_is_one_of_a_misfit(report: ChildReport, suite: PromptSuite) -> None:
    """No labels at all are allowed: a fork that does not fit has none."""
    bare = replace(report, behaviour=unmeasured_behaviour(suite, BuiltinJudge(), "misfit"))
    assert load_report(dump(bare), suite) == bare
    forged = replace(report, behaviour=replace(report.behaviour, labels=()))
    with pytest.raises(EvaluationFailedError, match="its labels do not give"):
        load_report(dump(forged), suite)
