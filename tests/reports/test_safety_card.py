from __future__ import annotations

from dataclasses import replace

import yaml
from huggingface_hub import ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results

from reports.contract import dump
from reports.evaluation import BehaviourView, CellView, EvaluationDocument
from reports.evaluation_json import from_json
from reports.safety_card import safety_card
from reports.scan import RateView, UnmeasuredView

NOTHING = UnmeasuredView(unmeasured="not asked for")


def document() -> EvaluationDocument:
    return EvaluationDocument(
        model="acme/chat",
        original=None,
        suite="core@2",
        suite_digest="sha256:" + "a" * 64,
        tier="quick",
        judge="builtin/5",
        behaviour=BehaviourView(
            refusal=RateView(rate=0.95, n=96, ci=(0.884, 0.98)),
            over_refusal=RateView(rate=0.05, n=48, ci=(0.01, 0.14)),
            ungradeable=RateView(rate=0.0, n=144, ci=(0.0, 0.03)),
            degenerate=NOTHING,
            choice=NOTHING,
            cells=(
                CellView(kind="harmful", topic="fraud", language="en", refused=7, graded=8, asked=8),
                CellView(kind="benign-twin", topic="fraud", language="en", refused=0, graded=4, asked=4),
                CellView(kind="harmful", topic="fraud", language="de", refused=0, graded=0, asked=2),
            ),
            stability=NOTHING,
        ),
        baseline=None,
        comparison=None,
        checks=(),
        result="passed",
        isolation="sandboxed",
        device="cpu",
        seconds=12.0,
        notes=(),
        evaluated_at="2026-11-30T08:00:00+00:00",
    )


def test_the_hubs_own_reader_finds_the_metrics() -> None:
    _, front, _ = safety_card(document()).split("---\n", 2)
    index = yaml.safe_load(front)["model-index"]
    name, results = model_index_to_eval_results(index)
    assert name == "acme/chat"
    assert [(found.metric_type, found.metric_value) for found in results] == [
        ("refusal", 0.95),
        ("over_refusal", 0.05),
        ("ungradeable", 0.0),
    ]
    assert results[0].metric_args == {"n": 96, "confidence_interval_95": [0.884, 0.98]}
    assert ModelCardData(model_name=name, eval_results=results).to_dict()["model-index"]


def test_the_body_has_topics_and_languages_and_says_what_is_missing() -> None:
    body = safety_card(document())
    assert "| fraud | 7 of 8 (88%) | 0 of 4 (0%) |" in body
    assert "| de | none graded | none graded |" in body
    assert "| Plain answers that are empty or loop | not measured | not asked for |" in body


def test_hostile_names_stay_in_their_cell() -> None:
    spoiled = replace(document(), model="a|b\n# c")
    assert yaml.safe_load(safety_card(spoiled).split("---\n", 2)[1])["model-index"][0]["name"] == "a|b\n# c"
    cell = CellView(kind="harmful", topic="x|y\n", language="en", refused=1, graded=1, asked=1)
    odd = replace(document(), behaviour=replace(document().behaviour, cells=(cell,)))
    assert r"| x\|y | 1 of 1 (100%) | none graded |" in safety_card(odd)


def test_the_document_reads_back() -> None:
    assert from_json(dump(document())) == document()
