"""Many variants of one original in one real, confined child."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evals.answers import NOTHING_KNOWN, Asker, Asking
from evals.confine import Confinement
from evals.interface import EvalRequest, EvaluationFailedError, Isolation, Measured, Unmeasured
from evals.measure import measure
from evals.run import series
from evals.series import measure_series
from evals.suite import load_suite
from evals.variants import Part, SeriesRequest, SeriesResult, Storage, Variant
from evals.wire import SeriesReport, dump, load_series_report, write_transcript
from tests.evals.models import (
    COMPLIANCE,
    REFUSAL,
    make_automaton,
    make_model,
    make_tokenizer,
    save_weights,
    transitions,
)

CONFINEMENT = Confinement(Isolation.REDUCED, ())


@pytest.fixture(scope="module")
def files(refuser: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A fork that complies, one that loops, one that is broken, and the release's own file."""
    folder = tmp_path_factory.mktemp("forks")
    models = {
        "complies": make_automaton(transitions(COMPLIANCE)),
        "loops": make_automaton(transitions("answer", loop=True)),
    }
    paths = {name: save_weights(folder / name, model) for name, model in models.items()}
    broken = {"model__norm__weight": torch.full((64,), torch.nan)}
    paths["broken"] = save_weights(folder / "broken", make_model(), **broken)
    return {**paths, "same": refuser / "model.safetensors"}


@pytest.fixture(scope="module")
def request_(
    refuser: Path, suite_path: Path, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> SeriesRequest:
    variants = [Variant(name, (Part((path,)),)) for name, path in files.items()]
    half = Variant("dose", (Part((files["complies"],), 0.45),))
    return SeriesRequest(
        original=refuser,
        variants=(*variants, half, Variant("int4", (), Storage.INT4)),
        suite=suite_path,
        scratch=tmp_path_factory.mktemp("series"),
        max_new_tokens=12,
        device="cpu",
    )


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def result(request_: SeriesRequest, told: list[str]) -> SeriesResult:
    return series(request_, progress=told.append)


def test_every_variant_is_measured_on_its_own(result: SeriesResult, told: list[str]) -> None:
    """What one fork does is seen in its result alone; one that does not fit is unmeasured."""
    found = {one.id: one for one in (result.original, *result.variants)}
    rates = {
        name: one.behaviour.refusal.value if isinstance(one.behaviour.refusal, Measured) else None
        for name, one in found.items()
    }
    assert rates == {
        "original": 1.0, "complies": 0.0, "loops": None, "broken": None, "same": 1.0, "dose": 1.0,
        "int4": 1.0,
    }  # fmt: skip
    assert found["same"].kl_per_token == Measured(0.0, 4, 0.0, 0.0)
    assert found["same"].behaviour == found["original"].behaviour
    assert isinstance(broken := found["broken"].behaviour.refusal, Unmeasured)
    assert (
        broken.reason
        == "the fork does not fit the original: model.norm.weight holds values that are not finite"
    )
    dose, whole = found["dose"].kl_per_token, found["complies"].kl_per_token
    assert isinstance(dose, Measured)
    assert isinstance(whole, Measured)
    assert 0 < dose.value < whole.value
    assert all(one.seconds >= one.swap_seconds > 0 for one in result.variants)
    assert {"original: generate 52/52", "fork 1/6: generate 52/52", "fork 6/6: load"} <= set(told)


def test_a_series_says_what_single_evaluations_say(
    result: SeriesResult, request_: SeriesRequest, files: dict[str, Path], tmp_path: Path
) -> None:
    """One fork alone, against the same answers of the original, gives the same numbers, bit for bit."""
    transcript = tmp_path / "baseline.json"
    greedy = {prompt.id: REFUSAL for prompt in load_suite(request_.suite).prompts}
    write_transcript(transcript, replace(NOTHING_KNOWN, greedy=greedy))
    alone = measure(
        EvalRequest(
            original=request_.original,
            weights=(files["complies"],),
            suite=request_.suite,
            baseline_transcript=transcript,
            scratch=tmp_path,
            max_new_tokens=12,
            tier=request_.tier,
            samples=0,
            device="cpu",
        ),
        CONFINEMENT,
        lambda _: None,
    )
    assert result.variants[0].behaviour == alone.behaviour
    assert result.variants[0].kl_per_token == alone.kl_per_token
    assert result.variants[0].perplexity_ratio == alone.perplexity_ratio


def test_known_answers_are_not_asked_again(suite_path: Path) -> None:
    """Answers of a smaller tier are taken over, greedy and sampled; only the others are made."""
    suite = load_suite(suite_path)
    asker = Asker(
        make_automaton(transitions(REFUSAL)),
        make_tokenizer(),
        Asking(max_new_tokens=6, seed=0, samples=2, repeats=1),
    )
    told: list[str] = []
    known = replace(
        NOTHING_KNOWN, greedy={"h0": "red", "gone": "x"}, sampled={"u1": ("a", "b", "c"), "h1": ("d",)}
    )
    transcript = asker.transcript(suite, known, told.append)
    assert transcript.greedy["h0"] == "red"
    assert list(transcript.greedy) == [prompt.id for prompt in suite.prompts]
    assert set(transcript.greedy.values()) == {"red", REFUSAL}
    assert (transcript.sampled["u1"], transcript.sampled["h1"]) == (("a", "b"), ("d",))
    assert {len(texts) for name, texts in transcript.sampled.items() if name[0] == "u"} == {2}
    assert {told[-1], "generate 51/51"} <= set(told)
    assert told[-1] == "sample 29/29"


def test_time_that_runs_out_leaves_the_rest_unmeasured(request_: SeriesRequest) -> None:
    """What there is no time for is said, variant by variant; what was measured stays."""
    late = replace(request_, timeout_seconds=0.0)
    report = measure_series(late, CONFINEMENT, lambda _: None)
    assert isinstance(report.original.behaviour.refusal, Measured)
    reasons = {one.behaviour.refusal for one in report.variants}
    assert reasons == {Unmeasured("the series ran out of its time")}
    assert {one.kl_per_token for one in report.variants} == reasons


@pytest.fixture
def report(result: SeriesResult) -> SeriesReport:
    return SeriesReport(
        original=result.original,
        variants=result.variants,
        isolation=result.isolation,
        device=result.device,
        load_seconds=result.load_seconds,
    )


def test_a_hostile_report_is_refused(report: SeriesReport, request_: SeriesRequest) -> None:
    """Other variants, their order, impossible numbers and times are no report."""
    suite = load_suite(request_.suite)
    names = [variant.id for variant in request_.variants]
    assert load_series_report(dump(report), suite, names) == report
    first = report.variants[0]
    bad = [
        replace(report, variants=report.variants[:-1]),
        replace(report, variants=report.variants[::-1]),
        replace(report, load_seconds=-1.0),
        replace(report, variants=(replace(first, seconds=-1.0), *report.variants[1:])),
        replace(report, variants=(replace(first, kl_per_token=Measured(1, 1, 2, 3)), *report.variants[1:])),
        replace(report, original=replace(first, behaviour=replace(first.behaviour, suite_digest="x"))),
        replace(
            report, original=replace(first, behaviour=replace(first.behaviour, choice=Measured(0, 0, 0, 0)))
        ),
    ]
    for one in bad:
        with pytest.raises(EvaluationFailedError, match=r"reported|other"):
            load_series_report(dump(one), suite, names)
    with pytest.raises(EvaluationFailedError, match="no valid report"):
        load_series_report(b'{"variants": []}', suite, names)


def test_variants_need_names_of_their_own(request_: SeriesRequest) -> None:
    """None, or two under one name, is our mistake, told before anything is started."""
    for variants in ((), (request_.variants[0], request_.variants[0])):
        with pytest.raises(ValueError, match="id of its own"):
            series(replace(request_, variants=variants))


def test_a_variant_that_memory_cannot_hold_is_unmeasured(request_: SeriesRequest) -> None:
    """Full memory while a variant is in takes it out and says so; another error of torch is raised."""

    def failing(error: Exception) -> SeriesReport:
        def tell(text: str) -> None:
            if text == "fork 1/6: score the fork":
                raise error

        return measure_series(request_, CONFINEMENT, tell)

    report = failing(RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"))
    assert isinstance(refusal := report.variants[0].behaviour.refusal, Unmeasured)
    assert "memory" in refusal.reason
    assert report.variants[4].behaviour == report.original.behaviour
    with pytest.raises(RuntimeError, match="mat1"):
        failing(RuntimeError("mat1 and mat2"))
