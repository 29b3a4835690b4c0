"""The classifier of a release: what it learns, what it may say, and how it is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detector.outputs.classifier import Classifier, Mode, assess
from detector.outputs.classifier_card import CardFacts, write_card
from detector.outputs.classifier_files import CONFIG, MODEL, read_classifier, skops_bytes, write_classifier
from detector.outputs.conformal import Calibration, spread, sums, units_needed
from detector.outputs.evaluation import Evaluation, Split, clopper_pearson, evaluate
from detector.outputs.interface import (
    BadPackError,
    Decision,
    NothingToLearnError,
    Output,
    ReferencePack,
    Sample,
    ScoredOutput,
)
from detector.outputs.pack import NOT_SCORED
from detector.outputs.table import Parts, class_weights, split
from detector.outputs.training import train, train_parts
from tests.detector.outputs.speakers import AUTHENTIC, Speaker, sample, speak

SHIFT = 1.5
FORKS = {f"org{family}/fork{number}@{'c' * 40}": (family, number) for family in (1, 2) for number in (1, 2)}
FORK = next(iter(FORKS))
DATES = dict(zip(FORKS, ("2026-01", "2026-02", "2026-03", "2026-04"), strict=True))


def a_pack(each: int = 46) -> ReferencePack:
    forks = [
        sample(name, Speaker(family, SHIFT, number), 5, 10 * family + number, family=f"family-{family}")
        for name, (family, number) in FORKS.items()
    ]
    return ReferencePack(
        release=f"good/model@{'a' * 40}",
        root_digest="sha256:" + "1" * 64,
        probe_set="sha256:" + "2" * 64,
        transcripts=(),
        samples=(
            sample("authentic", AUTHENTIC, each, 1, benign=True),
            sample("authentic", Speaker(temperature=0.8), each, 2, cell="temperature-0.8", benign=True),
            *forks,
        ),
        refusals=(),
        first_logprobs={},
    )


@pytest.fixture(scope="module")
def parts() -> Parts:
    return split(a_pack())


@pytest.fixture(scope="module")
def classifier(parts: Parts) -> Classifier:
    return train_parts(a_pack(), parts)


@pytest.fixture(scope="module")
def evaluation(parts: Parts, classifier: Classifier) -> Evaluation:
    return evaluate(parts, classifier.calibrations, dates=DATES)


# --- thresholds ---


def test_the_conformal_p_value_is_a_rank_in_the_worst_cell() -> None:
    """Exact numbers; ties count against the outputs under test."""
    calibration = Calibration({
        "seed": np.array([1, 2, 3, 4], np.float32), "hot": np.array([9, 0, 0], np.float32)
    })  # fmt: skip
    assert calibration.p_value(3.0, 1) == max((1 + 2) / 5, (1 + 1) / 4)
    assert calibration.by_cell(99.0, 1) == {"seed": 1 / 5, "hot": 1 / 4}
    assert calibration.p_values(np.array([3.0, 99.0]), 1).tolist() == [0.6, 0.25]
    assert calibration.p_value(7.0, 2) == max(2 / 3, 2 / 2)
    with pytest.raises(ValueError, match="no calibration for 5 outputs"):
        calibration.p_value(1.0, 5)


def test_units_share_no_output_and_answers_to_one_prompt_lie_apart() -> None:
    """Each calibration output is in one unit at most."""
    assert sums(np.arange(7, dtype=np.float32), 3).tolist() == [3.0, 12.0]
    assert spread(["a", "a", "b", "a", "b"]) == [0, 2, 1, 4, 3]


@pytest.mark.parametrize("n", [1, 5])
def test_there_is_no_threshold_below_299_units(n: int) -> None:
    """298 units without a false alarm do not show a rate of 1 % with 95 % confidence; 299 do."""
    assert units_needed(0.01) == 299
    scores = np.random.default_rng(0).normal(size=299 * n).astype(np.float32)
    enough, short = Calibration({"seed": scores}), Calibration({"seed": scores, "hot": scores[1:]})
    threshold = enough.threshold(n, 0.01)
    assert threshold is not None
    assert enough.p_value(threshold + 1e-6, n) <= 0.01 < enough.p_value(threshold - 1e-6, n)
    assert short.threshold(n, 0.01) is None
    assert (enough.largest(40, 0.01), short.largest(40, 0.01)) == (n, n - 1)


def test_false_alarms_stay_below_alpha_in_every_cell() -> None:
    """3,000 new units a cell against 600 calibration units; 1.9 % is 4 standard errors above 1 %."""
    rng = np.random.default_rng(3)
    cells = {"seed": 0.0, "hot": -2.0}
    calibration = Calibration({
        name: (shift + rng.standard_t(3, size=3000)).astype(np.float32) for name, shift in cells.items()
    })  # fmt: skip
    rates = {}
    for name, shift in cells.items():
        new = sums((shift + rng.standard_t(3, size=15000)).astype(np.float32), 5)
        rates[name] = float((calibration.p_values(new, 5) <= 0.01).mean())
    assert rates["hot"] <= 0.005
    assert rates["seed"] <= 0.019


# --- learning ---


def test_weights_make_families_forks_and_prompts_count_equally(parts: Parts) -> None:
    """Whatever their numbers of outputs."""
    table = parts.training
    few = np.flatnonzero((table.model != FORK) | (np.arange(len(table.model)) % 3 == 0))
    table = table.take(few)
    weights = class_weights(table)
    assert weights.mean() == pytest.approx(1)
    assert weights[table.benign].sum() == pytest.approx(weights[~table.benign].sum())
    by_model = [weights[table.model == fork].sum() for fork in FORKS]
    assert by_model == pytest.approx([by_model[0]] * len(FORKS))
    cells = [
        weights[table.cell == cell][table.benign[table.cell == cell]].sum()
        for cell in ("seed", "temperature-0.8")
    ]
    assert cells[0] == pytest.approx(cells[1])
    prompts = [
        weights[(table.model == FORK) & (table.prompt == one)].sum() for one in np.unique(table.prompt)
    ]
    assert [one for one in prompts if one] == pytest.approx([max(prompts)] * sum(one > 0 for one in prompts))


def test_nothing_calibrates_that_was_learned_from(parts: Parts) -> None:
    """And all that is not learned from calibrates."""
    for sample_ in a_pack().samples[:2]:
        held = parts.calibration[sample_.cell]
        assert len(held) == len(sample_.scored) - round(len(sample_.scored) / 3)
        assert parts.training.cell.tolist().count(sample_.cell) >= round(len(sample_.scored) / 3)
    assert not any(one.output.greedy for held in parts.calibration.values() for one in held)


def test_a_pack_without_a_modified_fork_teaches_nothing() -> None:
    """Neither does one without the release; benign forks are no modification."""
    pack = a_pack(2)
    benign = tuple(replace(one, benign=True) for one in pack.samples)
    for samples in (pack.samples[:2], pack.samples[2:], benign, ()):
        with pytest.raises(NothingToLearnError):
            train(replace(pack, samples=samples))


def outputs_of(name: str, n: int, seed: int) -> list[ScoredOutput]:
    family, number = FORKS[name]
    return speak(Speaker(family, SHIFT, number), 20, seed)[:n]


def test_a_known_fork_is_found_and_named_and_the_release_is_not(classifier: Classifier) -> None:
    """By scores and texts, and by texts alone."""
    for strip in (False, True):

        def asked(outputs: list[ScoredOutput], *, strip: bool = strip) -> list[ScoredOutput]:
            return [replace(one, authentic=NOT_SCORED) for one in outputs] if strip else outputs

        named = [assess(classifier, asked(outputs_of(name, 60, 99))) for name in FORKS]
        own = assess(classifier, asked(speak(AUTHENTIC, 3, 98)))
        found = [(one.named, one.attribution.decision) for one in named if one.named]
        assert len(found) >= 2
        assert {decision for _, decision in found} == {Decision.DIFFERENT}
        assert all(one.named in (None, name) for one, name in zip(named, FORKS, strict=True))
        assert own.named is None
        assert all(one.decision is Decision.NO_DIFFERENCE for one in own.equality)
        assert (
            [one.test for one in own.equality] == ["text-classifier"]
            if strip
            else ["score-classifier", "text-classifier"]
        )
        assert max(own.by_cell[0].values()) == own.equality[0].p_value


def test_what_cannot_be_judged_is_insufficient(classifier: Classifier) -> None:
    """Other prompts, greedy answers, no text, no outputs, too few calibration outputs for the level."""
    outputs = outputs_of(FORK, 20, 5)
    elsewhere = [replace(one, output=replace(one.output, prompt_id="other")) for one in outputs]
    greedy = [
        replace(one, output=replace(one.output, sampling=replace(one.output.sampling, temperature=0.0)))
        for one in outputs
    ]
    silent = [ScoredOutput(Output(prompt_id="p0", text=None, refused=True), NOT_SCORED, {})]
    for asked in (elsewhere, greedy, silent, []):
        found = assess(classifier, asked)
        assert {one.decision for one in found.equality} == {Decision.INSUFFICIENT}
        assert found.attribution.decision is Decision.INSUFFICIENT
        assert found.equality[0].p_value is None
    strict = assess(classifier, outputs, alpha=0.0001)
    assert strict.equality[0].decision is Decision.INSUFFICIENT
    assert "needs 29956" in strict.equality[0].reason


def test_a_batch_changes_no_bit_of_a_score(classifier: Classifier) -> None:
    """One by one, or together."""
    outputs = outputs_of(FORK, 25, 7)
    for mode in Mode:
        alone = np.concatenate([classifier.log_odds(mode, [one]) for one in outputs])
        assert np.array_equal(alone, classifier.log_odds(mode, outputs))


# --- evaluation ---


def test_a_held_out_fork_teaches_nothing(evaluation: Evaluation) -> None:
    """Every split has its rows, texts carry over to a sibling and hardly to another family, scores do."""

    def mean(split_: Split, mode: Mode) -> float:
        return float(
            np.mean([row.auroc for row in evaluation.forks if (row.split, row.mode) == (split_, mode)])
        )

    forks = {(row.split, row.mode): [] for row in evaluation.forks}
    for row in evaluation.forks:
        forks[row.split, row.mode].append(row.fork)
    assert {key: sorted(names) for key, names in forks.items()} == {
        (split_, mode): sorted(FORKS)[2:] if split_ is Split.TIME else sorted(FORKS)
        for split_ in Split for mode in Mode
    }  # fmt: skip
    assert mean(Split.FORK, Mode.TEXT) > mean(Split.FAMILY, Mode.TEXT) + 0.15
    assert mean(Split.FAMILY, Mode.SCORE) > mean(Split.FAMILY, Mode.TEXT) + 0.1


def test_rates_without_units_are_unmeasured(evaluation: Evaluation) -> None:
    """613 calibration outputs a cell: a threshold for one output, none for five; false alarms on a half."""
    for row in evaluation.forks:
        assert [bool(one.unmeasured) for one in row.rates] == [False, True, True, True, True]
        assert row.rates[0].units == row.outputs
    alarms = [row.rates[0] for row in evaluation.cells]
    assert all(one.hits / one.units < 0.04 for one in alarms)


def test_clopper_pearson_is_exact() -> None:
    """Values of the textbook's table."""
    assert clopper_pearson(0, 299) == (0.0, pytest.approx(0.01226, abs=1e-5))
    assert clopper_pearson(10, 10) == (pytest.approx(0.69150, abs=1e-5), 1.0)
    assert clopper_pearson(5, 10) == pytest.approx((0.18709, 0.81291), abs=1e-5)


# --- files and card ---


def test_a_stored_classifier_gives_the_same_bits(classifier: Classifier, tmp_path: Path) -> None:
    """Scores, p-values and words; and the same bytes when written again."""
    digest = write_classifier(classifier, tmp_path / "c")
    again = read_classifier(tmp_path / "c", root_digest=classifier.root_digest)
    outputs = outputs_of(FORK, 40, 11)
    for mode in Mode:
        assert np.array_equal(classifier.log_odds(mode, outputs), again.log_odds(mode, outputs))
    assert set(again.setting_heads) == {"seed", "temperature-0.8"}
    for cell in classifier.setting_heads:
        assert np.array_equal(classifier.log_odds_in(cell, outputs), again.log_odds_in(cell, outputs))
    assert np.array_equal(classifier.shares(outputs), again.shares(outputs))
    assert assess(classifier, outputs) == assess(again, outputs)
    assert write_classifier(again, tmp_path / "d") == digest


def test_a_damaged_or_foreign_classifier_is_refused(classifier: Classifier, tmp_path: Path) -> None:
    """Numbers of another file, of another shape, not finite; other features; another release."""
    from safetensors.numpy import load, save

    write_classifier(classifier, tmp_path)
    with pytest.raises(BadPackError, match="not of sha256:other"):
        read_classifier(tmp_path, root_digest="sha256:other")
    config, model = (tmp_path / CONFIG).read_text(), (tmp_path / MODEL).read_bytes()
    arrays = load(model)

    def put(**changed: np.ndarray) -> None:
        import hashlib

        raw = save({**arrays, **changed})
        (tmp_path / MODEL).write_bytes(raw)
        (tmp_path / CONFIG).write_text(
            json.dumps({**json.loads(config), "model_sha256": hashlib.sha256(raw).hexdigest()})
        )

    put()
    read_classifier(tmp_path)
    for name in (
        "text.coef",
        "score.coef",
        "ngram.idf",
        "calibration.text.0",
        "standard.scales",
        "place.text.spread",
    ):
        broken = arrays[name].copy()
        broken.flat[0] = np.nan
        for array in (broken, arrays[name][:, None], arrays[name].astype(np.int8)):
            put(**{name: array})
            with pytest.raises(BadPackError):
                read_classifier(tmp_path)
    put(**{"ngram.columns": arrays["ngram.columns"][::-1].copy()})
    with pytest.raises(BadPackError, match="out of order"):
        read_classifier(tmp_path)
    (tmp_path / MODEL).write_bytes(model[:-1] + b"\xff")
    (tmp_path / CONFIG).write_text(config)
    with pytest.raises(BadPackError, match="not those of the configuration"):
        read_classifier(tmp_path)
    (tmp_path / MODEL).write_bytes(model)
    (tmp_path / CONFIG).write_text(config.replace('"mean-logp"', '"mean-log"'))
    with pytest.raises(BadPackError, match="other features"):
        read_classifier(tmp_path)


def test_the_skops_export_holds_no_code_and_the_same_scores(classifier: Classifier) -> None:
    """It loads without trusting anything."""
    from skops.io import get_untrusted_types, loads

    raw = skops_bytes(classifier)
    assert get_untrusted_types(data=raw) == []
    models = loads(raw, trusted=[])
    outputs = outputs_of(FORK, 20, 12)
    theirs = models["score"].decision_function(classifier.standardised(outputs))
    assert np.allclose(theirs, classifier.log_odds(Mode.SCORE, outputs), rtol=1e-6, atol=1e-6)
    assert set(models) == {"score", "text", "fork", "setting.seed", "setting.temperature-0.8"}


def test_the_card_says_all_that_it_must_and_quotes_nothing(
    classifier: Classifier, evaluation: Evaluation
) -> None:
    """Every section; hostile names are text; no output of anybody."""
    hostile = replace(classifier, left_out=("a|b\n# <script>",))
    card = write_card(hostile, evaluation, CardFacts(config_digest="sha256:9", expires="2027-05-30"))
    for said in (
        "no proof of identity", "Expires | 2027-05-30", "Chat template", "Tokenizer", "Probe set", "licence",
        "leave one family out", "leave one fork out", "temperature-0.8", "Paraphrase", "Mixing",
        "insufficient evidence", FORK, "n = 40", "not measured", "Clopper-Pearson",
    ):  # fmt: skip
        assert said in card
    assert "a\\|b \\# \\<script\\>" in card
    words = {
        one.output.text.split()[0] + " " + one.output.text.split()[1]
        for one in outputs_of(FORK, 20, 5)
        if one.output.text
    }
    assert not any(pair in card for pair in words)


def test_a_benign_fork_is_a_hard_negative() -> None:
    """Policy says what counts as modified: its outputs are on the authentic side of the head."""
    pack = a_pack(12)
    harmless = replace(pack.samples[2], benign=True)
    as_policy = train(replace(pack, samples=(*pack.samples[:2], harmless, *pack.samples[3:])))
    as_modified = train(pack)
    outputs = outputs_of(FORK, 60, 3)
    assert (
        as_policy.log_odds(Mode.TEXT, outputs).mean() < as_modified.log_odds(Mode.TEXT, outputs).mean() - 0.5
    )
    assert [one.benign for one in as_policy.known if one.model == FORK] == [True]
    assert isinstance(harmless, Sample)
