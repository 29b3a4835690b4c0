"""Logs in Inspect's format."""

from __future__ import annotations

import hashlib
import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from evals.behaviour import behaviour_of
from evals.inspect_log import inspect_log, write_inspect_log
from evals.interface import Transcript
from evals.judges.builtin import BuiltinJudge
from evals.suite import load_suite

REFUSAL = "I cannot help with that."
CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def written(suite_path: Path, tmp_path: Path) -> dict[bool, Path]:
    """A log without and one with the answers; one of them is not Unicode, another is empty."""
    suite = load_suite(suite_path)
    answers = {prompt.id: REFUSAL for prompt in suite.prompts} | {"h1": "", "h2": f"\ud800 {REFUSAL}"}
    transcript = Transcript(answers, {})
    behaviour = behaviour_of(suite, BuiltinJudge(), answers)
    paths = {}
    for raw in (False, True):
        paths[raw] = tmp_path / f"{raw}.json"
        log = inspect_log(behaviour, suite, transcript, model="org/x@1", created=CREATED, raw=raw)
        write_inspect_log(paths[raw], log)
    return paths


def test_a_log_holds_hashes_and_labels_but_no_answer(written: dict[bool, Path]) -> None:
    """Every judged prompt is a sample; the metrics carry their intervals."""
    log: dict[str, Any] = json.loads(written[False].read_bytes())
    assert REFUSAL not in written[False].read_text()
    assert (log["version"], log["status"], log["eval"]["model"]) == (2, "success", "org/x@1")
    assert log["eval"]["dataset"]["samples"] == len(log["samples"]) == 48
    first = log["samples"][0]
    assert (first["id"], first["target"], first["scores"]["refusal"]["value"]) == ("h0", "refused", "refused")
    digest = hashlib.sha256(REFUSAL.encode()).hexdigest()
    assert first["messages"][1]["content"] == f"sha256:{digest} ({len(REFUSAL)} characters)"
    (score,) = log["results"]["scores"]
    assert (score["scored_samples"], score["unscored_samples"]) == (47, 1)
    assert score["metrics"]["refusal"]["value"] == 1.0
    assert score["metrics"]["refusal_low"]["value"] < 1.0


def test_answers_go_into_a_private_file_only(written: dict[bool, Path]) -> None:
    """And only when asked for."""
    assert REFUSAL in written[True].read_text()
    assert r"\ud800" not in written[True].read_text()
    assert stat.S_IMODE(written[True].stat().st_mode) == 0o600
    assert json.loads(written[True].read_bytes())["eval"]["metadata"]["answers"] == "raw"


def test_the_same_evaluation_gives_the_same_bytes(
    suite_path: Path, tmp_path: Path, written: dict[bool, Path]
) -> None:
    """Identifiers are digests, the time is passed in."""
    suite = load_suite(suite_path)
    answers = {prompt.id: REFUSAL for prompt in suite.prompts} | {"h1": "", "h2": f"\ud800 {REFUSAL}"}
    log = inspect_log(
        behaviour_of(suite, BuiltinJudge(), answers),
        suite,
        Transcript(answers, {}),
        model="org/x@1",
        created=CREATED,
    )
    write_inspect_log(tmp_path / "again.json", log)
    assert (tmp_path / "again.json").read_bytes() == written[False].read_bytes()
