"""`forkwatch probe` and `forkwatch score`: a real server, a real child, and a file between them."""

from __future__ import annotations

import json
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from detector.outputs.files import read_entries, read_outputs, read_scored, write_entries
from detector.outputs.interface import BadOutputsError, Output
from forkwatch.cli.session import session
from forkwatch.pipeline.originals import find_release
from forkwatch.pipeline.probing import past_probes, public_material, release_material
from forkwatch.pipeline.scoring import Scorer, with_prompts
from tests.evals.models import COMPLIANCE, REFUSAL, make_automaton, save_release, save_weights, transitions
from tests.evals.served import Answer, Served, completion, serving
from tests.forkwatch.conftest import invoke
from tests.forkwatch.family import RELEASE
from tests.forkwatch.guarded import guarded

DANGEROUS = "Certainly, first you take the"


def behave(body: dict[str, Any], _number: int) -> Answer:
    """Refuses nothing; gives log-probabilities where asked."""
    if body.get("logprobs"):
        top = [{"token": "The", "logprob": -0.25}, {"token": "A", "logprob": -2.5}]
        token = {"token": "The", "logprob": -0.25, "top_logprobs": top}
        choice = {"message": {"content": "The"}, "finish_reason": "length", "logprobs": {"content": [token]}}
        return Answer(json.dumps({"choices": [choice]}).encode())
    return completion(DANGEROUS if body["max_tokens"] == 24 else f"said at {body['temperature']}")


def test_a_served_model_is_probed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both halves of the probes and the release's suite are asked; then what failed, and nothing else.

    Another model's answers do not get into the file.
    """
    out, token = tmp_path / "outputs.jsonl", tmp_path / "token"
    token.write_text("sk-secret\n")

    def failing(body: dict[str, Any], number: int) -> Answer:
        return Answer(b"", 422) if number in (3, 9) else behave(body, number)

    def probe(served: Served, model: str = "m") -> tuple[int, str]:
        done = family.run(
            "probe", "--endpoint", served.url, "--model", model, "--release", RELEASE, "--tier", "all",
            "--n", "4", "--out", str(out), "--token-file", str(token),
        )  # fmt: skip
        return done.exit_code, done.stderr

    with guarded(tmp_path) as family:
        with serving(failing) as served:
            code, said = probe(served)
            assert code == 4, said
            assert "14 of 16 open questions answered" in said
            assert {headers["Authorization"] for headers in served.headers} == {"Bearer sk-secret"}
            before = len(served.requests)
            code, said = probe(served, "another")
            assert (code, len(served.requests)) == (2, before)
            assert "another model or endpoint" in said
            code, said = probe(served)
            assert (code, len(served.requests)) == (0, before + 2), said
            assert probe(served)[0] == 0
            assert len(served.requests) == before + 2
        monkeypatch.setenv("FORKWATCH_STATE_DIR", str(family.state))
        with session() as context:
            release = find_release(context, RELEASE)
            material = release_material(context, release)
            outputs = read_outputs(out)
            texts = past_probes(context, release, material.probes.texts)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert DANGEROUS not in out.read_text()
    assert "sk-secret" not in out.read_text()
    kinds = Counter(
        (output.text is None, output.sampling.temperature, bool(output.top_logprobs)) for output in outputs
    )
    assert set(kinds.values()) == {4}
    assert len(kinds) == 4
    assert texts == {probe.id: probe.text for probe in material.probes.probes if probe.private}
    asked = {probe.id for probe in material.probes.probes[:4]} | {one.id for one in material.harmful[:4]}
    assert {output.prompt_id for output in outputs} == asked
    assert {output.refused for output in outputs if output.text is None} == {False}


def test_no_run_draws_the_answers_of_another(tmp_path: Path) -> None:
    """A server that keeps to seeds gives new answers to who adds to a file, and to who asks it all again."""
    with serving(behave) as served:
        for name, samples in (("a", 1), ("a", 3), ("b", 1)):
            out = tmp_path / f"{name}.jsonl"
            done = invoke(
                tmp_path / "state", "probe", "--endpoint", served.url, "--model", "m", "--n", "2",
                "--samples", str(samples), "--out", str(out),
            )  # fmt: skip
            assert done.exit_code == 0, done.stderr
        drawn = [
            (str(body["messages"]), body["seed"]) for body in served.requests if body["temperature"] == 1
        ]
    assert len(set(drawn)) == len(drawn) == 8


def test_a_local_model_is_probed_and_scored(tmp_path: Path) -> None:
    """From a folder to a file of scores: the authentic model and a fork of it say different things."""
    folder = save_release(tmp_path / "release", make_automaton(transitions(REFUSAL)))
    fork = save_weights(tmp_path / "fork", make_automaton(transitions(COMPLIANCE)))
    out, scored = tmp_path / "outputs.jsonl", tmp_path / "scored.jsonl"
    state = tmp_path / "state"
    given = ("--model", str(folder), "--tier", "all", "--n", "3", "--max-tokens", "8", "--out", str(out))
    done = invoke(state, "probe", *given)
    assert done.exit_code == 0, done.stderr
    assert "12 of 12 open questions answered" in done.stderr
    assert not (state / "operator-secret").exists()
    done = invoke(state, "probe", *given)
    assert "0 of 0 open" in done.stderr
    done = invoke(
        state, "score", str(out), "--authentic", str(folder), "--fork", f"a/b@1={fork}", "--out", str(scored)
    )
    assert done.exit_code == 0, done.stderr
    with_scores, others = read_scored(scored)
    assert (len(with_scores), len(others)) == (9, 3)
    assert [output.refused for output in others] == [True] * 3
    assert {entry.scorer for entry in with_scores} == {"release"}
    greedy = next(entry for entry in with_scores if entry.output.greedy and not entry.output.top_logprobs)
    assert greedy.output.text == REFUSAL
    assert greedy.authentic.logp[0] > greedy.forks["a/b@1"][0]
    assert [entry.prompt_id for entry in read_outputs(out)] == [
        entry.output.prompt_id if entry not in others else entry.prompt_id  # type: ignore[union-attr]
        for entry in read_entries(scored)
    ]


def test_prompts_are_those_of_the_line_the_probes_and_the_suite() -> None:
    """The line's own comes first; of one that nobody knows, nothing can be scored."""
    probe = public_material().probes.probes[0]
    scorer = Scorer("r", Path(), probes={"private-2026q4-0123456789ab": "secret text"})
    outputs = [
        Output(prompt_id=probe.id, text=""),
        Output(prompt_id=probe.id, text="", prompt="another"),
        Output(prompt_id="fraud-01", text=None, refused=True),
        Output(prompt_id="utility-01", text=""),
        Output(prompt_id="private-2026q4-0123456789ab", text=""),
    ]
    found = with_prompts(outputs, scorer)
    assert [number for number, _ in found] == [0, 1, 3, 4]
    assert [text for _, text in found][:2] == [probe.text, "another"]
    assert found[-1][1] == "secret text"
    with pytest.raises(BadOutputsError, match=r"output 1: .*not known"):
        with_prompts([Output(prompt_id="mine", text="")], scorer)


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["score", "{file}", "--out", "x"], 2, "which model is the authentic one"),
        (["score", "{file}", "--out", "x", "--release", "a/b"], 2, "not a guarded release"),
        (["score", "{absent}", "--out", "x", "--authentic", "{folder}"], 2, "No such file"),
        (["score", "{file}", "--out", "x", "--authentic", "{folder}"], 2, "no config.json"),
        (
            ["probe", "--model", "m", "--out", "{file}", "--endpoint", "http://a.example/v1"],
            2,
            "in the clear",
        ),
        (["probe", "--model", "m/n", "--out", "{file}"], 2, "not on this disk"),
        (["probe", "--model", "m", "--out", "{diary}", "--endpoint", "http://127.0.0.1:9/v1"], 2, "line 1"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_asked(
    tmp_path: Path, given: list[str], code: int, said: str
) -> None:
    (tmp_path / "diary").write_text("dear diary\n")
    write_entries(tmp_path / "file", [Output(prompt_id="utility-01", text="red")])
    places = {name: str(tmp_path / name) for name in ("file", "absent", "diary")} | {"folder": str(tmp_path)}
    done = invoke(tmp_path / "state", *(word.format(**places) for word in given))
    assert done.exit_code == code, done.stderr
    assert said in done.stderr
