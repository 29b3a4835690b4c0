"""What the child measures, run in this process; `test_run` runs it confined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evals.compare import compare
from evals.confine import Confinement
from evals.interface import EvalRequest, Isolation, Measured, Outcome, Unmeasured
from evals.measure import measure
from evals.measurements import EvalResult, SafetyStatus
from evals.wire import TRANSCRIPT, ChildReport, load_transcript, write_transcript
from tests.evals.models import COMPLIANCE, make_automaton, save_weights, transitions

CONFINEMENT = Confinement(Isolation.REDUCED, ("reduced isolation: a test",))


@pytest.fixture(scope="module")
def request_(refuser: Path, suite_path: Path, tmp_path_factory: pytest.TempPathFactory) -> EvalRequest:
    """A request about the release itself."""
    return EvalRequest(
        original=refuser,
        weights=(),
        suite=suite_path,
        baseline_transcript=None,
        scratch=tmp_path_factory.mktemp("original"),
        max_new_tokens=12,
        samples=2,
        device="cpu",
    )


@pytest.fixture(scope="module")
def original(request_: EvalRequest) -> ChildReport:
    return measured(request_)


def measured(request: EvalRequest) -> ChildReport:
    return measure(request, CONFINEMENT, lambda _: None)


def fork_request(request_: EvalRequest, folder: Path, weights: Path) -> EvalRequest:
    return replace(
        request_,
        weights=(weights,),
        baseline_transcript=request_.scratch / TRANSCRIPT,
        scratch=folder,
    )


def result(report: ChildReport) -> EvalResult:
    return EvalResult(
        behaviour=report.behaviour,
        kl_per_token=report.kl_per_token,
        perplexity_ratio=report.perplexity_ratio,
        transcript=Path(TRANSCRIPT),
        isolation=report.isolation,
        device=report.device,
        seconds=1.0,
    )


def test_the_same_weights_measure_the_same(
    request_: EvalRequest, original: ChildReport, refuser: Path, tmp_path: Path
) -> None:
    """A byte-identical fork diverges by exactly 0, with a perplexity ratio of 1 and the same transcript."""
    same = measured(fork_request(request_, tmp_path, refuser / "model.safetensors"))
    assert same.kl_per_token == Measured(0.0, 4, 0.0, 0.0)
    assert same.perplexity_ratio == Measured(1.0, 4, 1.0, 1.0)
    assert same.behaviour == original.behaviour
    assert (tmp_path / TRANSCRIPT).read_bytes() == (request_.scratch / TRANSCRIPT).read_bytes()
    assert compare(original.behaviour, result(same)).status is SafetyStatus.RETAINED


def test_a_broken_fork_is_ungradeable_not_unsafe(
    request_: EvalRequest, original: ChildReport, tmp_path: Path
) -> None:
    """A fork that loops is degenerate: nothing is said about its refusals."""
    weights = save_weights(tmp_path, make_automaton(transitions("answer", loop=True)))
    fork = measured(replace(fork_request(request_, tmp_path, weights), max_new_tokens=40))
    assert isinstance(fork.behaviour.degenerate, Measured)
    assert fork.behaviour.degenerate.value == 1.0
    assert fork.behaviour.refusal == Unmeasured("none of 24 answers could be graded")
    assert compare(original.behaviour, result(fork)).status is SafetyStatus.NOT_MEASURED


def test_a_fork_that_does_not_fit_is_unmeasured(
    request_: EvalRequest, original: ChildReport, tmp_path: Path
) -> None:
    """Non-finite weights give unmeasured numbers with the reason, not an error and not a zero."""
    model = make_automaton(transitions(COMPLIANCE))
    name = "model__layers__0__mlp__up_proj__weight"
    weights = save_weights(tmp_path, model, **{name: torch.full((96, 64), torch.nan)})
    fork = measured(fork_request(request_, tmp_path, weights))
    assert isinstance(fork.behaviour.refusal, Unmeasured)
    assert fork.behaviour.refusal.reason.endswith("up_proj.weight holds values that are not finite")
    assert fork.behaviour.refusal == fork.kl_per_token == fork.perplexity_ratio
    assert load_transcript(tmp_path / TRANSCRIPT).greedy == {}
    comparison = compare(original.behaviour, result(fork))
    assert comparison.status is SafetyStatus.NOT_MEASURED
    assert "not finite" in comparison.reason


@pytest.mark.parametrize(
    ("keep", "reason"),
    [(None, "no transcript of the original was given"), ("h0", "the original answered no utility prompt")],
)
def test_without_a_baseline_there_is_no_divergence(
    request_: EvalRequest, original: ChildReport, refuser: Path, tmp_path: Path, keep: str | None, reason: str
) -> None:
    """Without a transcript of the original only the divergence is unmeasured; the labels are there."""
    transcript = load_transcript(request_.scratch / TRANSCRIPT)
    path = tmp_path / "baseline.json"
    write_transcript(path, replace(transcript, greedy={"h0": "sure", "u0": ""}))
    request = fork_request(request_, tmp_path, refuser / "model.safetensors")
    fork = measured(replace(request, baseline_transcript=path if keep else None, samples=1))
    divergences: tuple[Outcome, Outcome] = (fork.kl_per_token, fork.perplexity_ratio)
    assert divergences == (Unmeasured(reason), Unmeasured(reason))
    assert fork.behaviour == original.behaviour


def test_confinement_and_notes_reach_the_report(original: ChildReport) -> None:
    """What could not be confined is in the report, apart from what was ignored."""
    assert (original.isolation, original.gaps) == (Isolation.REDUCED, CONFINEMENT.gaps)
    assert original.notes == ()
