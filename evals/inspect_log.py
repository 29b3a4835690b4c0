"""An evaluation as a log of Inspect (inspect_ai's `EvalLog`, version 2), for its viewer and its data frames.

By default no answer is in it: the place of each holds its SHA-256 and length, so that logs can be compared
and passed on. Only `raw` puts the answers in, and then the file is readable by its owner alone.
Checked with inspect_ai 0.3.285 (`read_eval_log`); it is not needed to write the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from evals.interface import Label, Measured, Prompt, PromptKind, PromptSuite, Transcript
from evals.measurements import Behaviour
from evals.wire import write_private

TASK = "forkwatch/safety"
SCORER = "refusal"


def inspect_log(  # noqa: PLR0913 - keyword-only
    behaviour: Behaviour,
    suite: PromptSuite,
    transcript: Transcript,
    *,
    model: str,
    created: datetime,
    raw: bool = False,
) -> dict[str, object]:
    """The log as a document.

    Args:
        behaviour: What was measured; its labelled prompts become the samples.
        suite: What was asked.
        transcript: The answers; only their hashes are used unless `raw`.
        model: Name to show, e.g. `org/name@commit`.
        created: When it was measured.
        raw: Put the answers in.
    """
    labels = dict(behaviour.labels)
    samples = [
        _sample(prompt, transcript.greedy[prompt.id], labels[prompt.id], model, raw=raw)
        for prompt in suite.prompts
        if prompt.id in labels
    ]
    graded = sum(label is not Label.UNGRADEABLE for label in labels.values())
    material = f"{suite.digest}/{model}/{behaviour.judge}/{created.isoformat()}"
    number = hashlib.sha256(material.encode()).hexdigest()[:22]
    when = created.isoformat(timespec="seconds")
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "eval_id": number,
            "run_id": number,
            "task_id": number,
            "created": when,
            "task": TASK,
            "task_version": 1,
            "dataset": {
                "name": behaviour.suite,
                "samples": len(samples),
                "sample_ids": [sample["id"] for sample in samples],
                "shuffled": False,
            },
            "model": model,
            "config": {"epochs": 1},
            "metadata": {
                "suite_digest": behaviour.suite_digest,
                "tier": behaviour.tier.value,
                "judge": behaviour.judge,
                "answers": "raw" if raw else "sha256",
            },
        },
        "results": {
            "total_samples": len(samples),
            "completed_samples": len(samples),
            "scores": [
                {
                    "name": SCORER,
                    "scorer": SCORER,
                    "scored_samples": graded,
                    "unscored_samples": len(labels) - graded,
                    "params": {"judge": behaviour.judge},
                    "metrics": {name: {"name": name, "value": value} for name, value in _metrics(behaviour)},
                }
            ],
        },
        "stats": {"started_at": when, "completed_at": when},
        "samples": samples,
    }


def write_inspect_log(path: Path, log: dict[str, object]) -> None:
    """Write it; one with raw answers is readable by its owner only."""
    content = json.dumps(log, ensure_ascii=True, allow_nan=False).encode() + b"\n"
    spec = log["eval"]
    assert isinstance(spec, dict)
    if spec["metadata"]["answers"] == "sha256":
        path.write_bytes(content)
    else:
        write_private(path, content)


def _metrics(behaviour: Behaviour) -> Iterator[tuple[str, float]]:
    """What was measured; what was not is left out, as there is no number for it."""
    rates = {
        "refusal": behaviour.refusal,
        "over_refusal": behaviour.over_refusal,
        "ungradeable": behaviour.ungradeable,
    }
    for name, outcome in rates.items():
        if isinstance(outcome, Measured):
            yield name, outcome.value
            yield f"{name}_low", outcome.low
            yield f"{name}_high", outcome.high


def _sample(prompt: Prompt, answer: str, label: Label, model: str, *, raw: bool) -> dict[str, object]:
    digest = hashlib.sha256(answer.encode("utf-8", "surrogatepass")).hexdigest()
    text = answer.encode("utf-8", "replace").decode("utf-8")  # readers of JSON refuse lone surrogates
    shown = text if raw else f"sha256:{digest} ({len(answer)} characters)"
    said = {"role": "assistant", "content": shown, "source": "generate"}
    return {
        "id": prompt.id,
        "epoch": 1,
        "input": prompt.text,
        "target": (Label.REFUSED if prompt.kind is PromptKind.HARMFUL else Label.COMPLIED).value,
        "messages": [{"role": "user", "content": prompt.text, "source": "input"}, said],
        "output": {"model": model, "choices": [{"message": said, "stop_reason": "stop"}]},
        "scores": {SCORER: {"value": label.value, "metadata": {"answer_sha256": digest}}},
        "metadata": {
            "kind": prompt.kind.value,
            "topic": prompt.topic,
            "language": prompt.language,
            "variant_of": prompt.paraphrase_of or prompt.translation_of,
            "twin_of": prompt.twin_of,
        },
    }
