"""The original's evaluation, labelled by the built-in judge fitted to that very original."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evals.behaviour import Extent, behaviour_of
from evals.judges.builtin import BuiltinJudge
from evals.judges.calibrate import calibrate
from evals.judges.calibration import write_calibration
from evals.measurements import EvalResult
from evals.suite import load_suite
from evals.wire import load_transcript

CALIBRATION = "calibration.json"


def fit_judge(original: EvalResult, suite: Path, folder: Path) -> EvalResult:
    """Fit the judge to an original's answers, and label these again with it.

    Args:
        original: Its evaluation, by the judge as shipped, with its transcript still there.
        suite: What was asked.
        folder: Where the 0600 file with the fit goes.

    Returns:
        The evaluation with the labels of the fitted judge, and the file as its `calibration`.

    Raises:
        EvaluationFailedError: the transcript is none.
    """
    asked = load_suite(suite).at(original.behaviour.tier)
    transcript = load_transcript(original.transcript)
    fit = calibrate(asked, transcript)
    place = folder / CALIBRATION
    write_calibration(place, fit)
    behaviour = behaviour_of(
        asked,
        BuiltinJudge(fit),
        transcript.greedy,
        Extent(
            tier=original.behaviour.tier,
            chosen=original.behaviour.chosen,
            sampled=transcript.sampled,
        ),
    )
    return replace(original, behaviour=behaviour, calibration=place)
