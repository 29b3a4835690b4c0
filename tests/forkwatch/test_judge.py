"""`forkwatch judge bench` through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evals.judges.interface import JudgeError, JudgeUnreachableError
from forkwatch.errors import exit_code
from tests.evals.served import completion, serving
from tests.forkwatch.conftest import invoke

REFUSAL, COMPLIANCE = "I'm sorry, but I can't help with that.", "Sure, here is the answer."


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Two models, ten prompts; people and the built-in judge disagree on one answer."""
    rows = [
        {
            "model": model,
            "prompt_id": f"p{number}",
            "prompt": "what colour",
            "response": REFUSAL if number < 5 else COMPLIANCE,
            "label": "refused" if number < 5 + (model == "b") else "complied",
        }
        for model in ("a", "b")
        for number in range(10)
    ]
    path = tmp_path / "labelled.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_numbers_per_model(labelled: Path, tmp_path: Path) -> None:
    """The document has every number with its interval, per model and overall, and the table of labels."""
    done = invoke(tmp_path, "judge", "bench", str(labelled), "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "forkwatch.judge-bench/1"
    assert document["file"] | {"definition": ""} == {
        "name": "labelled.jsonl",
        "format": "forkwatch",
        "definition": "",
        "answers": 20,
        "prompts": 10,
        "skipped": 0,
    }
    (judge,) = document["judges"]
    assert judge["models"]["a"]["accuracy"]["value"] == 1.0
    assert judge["models"]["b"]["accuracy"] | {"ci": 0} == {"value": 0.9, "n": 10, "ci": 0}
    assert judge["models"]["b"]["bias"]["value"] == pytest.approx(-0.1)
    assert judge["overall"]["confusion"]["refused"] == {"refused": 10, "complied": 1, "ungradeable": 0}
    assert (judge["mean_accuracy"], judge["largest_bias"]) == (pytest.approx(0.95), pytest.approx(-0.1))
    assert judge["judge"].startswith("builtin/")


def test_two_judges_and_their_agreement(labelled: Path, tmp_path: Path) -> None:
    """One behind an endpoint, that never keeps to the form: its answers are ungradeable, not safe."""
    with serving(lambda _body, _number: completion("I would rather not.")) as served:
        arguments = ("--judge", "builtin", "--judge", f"{served.url}#other")
        done = invoke(tmp_path, "judge", "bench", str(labelled), *arguments, FORKWATCH_JUDGE_TOKEN="t0ken")
    assert done.exit_code == 0, done.stderr
    assert {headers["Authorization"] for headers in served.headers} == {"Bearer t0ken"}
    assert "ungradeable: 20 × the judge gave no label in the agreed form" in done.stdout
    assert "0 graded by both" in done.stdout
    assert "t0ken" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nowhere.jsonl",), 2, "No such file"),
        (("FILE", "--format", "xstest"), 2, "format xstest has the columns"),
        (("FILE", "--judge", "nowhere"), 2, "neither 'builtin'"),
        (("FILE", "--judge", "http://example.org/v1"), 2, "add the model's name"),
        (("FILE", "--judge", "http://example.org/v1#m"), 2, "in the clear"),
        (("FILE", "--token-file", "nowhere"), 2, "cannot read a token"),
        (("FILE", "--device", "tpu"), 2, "no device 'tpu'"),
    ],
)
def test_errors_are_one_line(
    labelled: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """With a tip and the exit code of the table."""
    given = [str(labelled) if argument == "FILE" else argument for argument in arguments]
    done = invoke(tmp_path, "judge", "bench", *given)
    assert (done.exit_code, said in done.stderr, "tip:" in done.stderr) == (code, True, True), done.stderr
    assert not done.stdout


def test_a_judge_that_does_not_answer_is_the_network() -> None:
    """A wrong name of a judge is the user's."""
    assert (exit_code(JudgeUnreachableError("x")), exit_code(JudgeError("x"))) == (4, 2)


def test_nothing_graded_is_not_success(labelled: Path, tmp_path: Path) -> None:
    """A file of answers that people could not label says nothing about a judge."""
    labelled.write_text(
        labelled.read_text().replace("refused", "ungradeable").replace("complied", "ungradeable")
    )
    done = invoke(tmp_path, "judge", "bench", str(labelled))
    assert done.exit_code == 3
    assert "unmeasured" in done.stdout
