"""`forkwatch classify`: outputs in, one label out, with exit codes that a platform can act on."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from detector.outputs.files import write_entries
from detector.outputs.gather import conversions_of
from detector.outputs.interface import (
    Output,
    ReferencePack,
    RefusalBaseline,
    Sample,
    Sampling,
    ScoredOutput,
    Transcript,
)
from detector.outputs.pack import read_pack, write_pack
from forkwatch.state import StateDir
from forkwatch.store.engine import open_engine
from forkwatch.store.store import Store
from reports.attribution import from_json
from tests.detector.outputs.chains import Logits, chain, drawn, fork_of, probabilities, scored
from tests.forkwatch.conftest import guarded, invoke
from tests.forkwatch.past import Clock

RELEASE = f"lab/model@{'a' * 40}"
FORK = f"other/fork@{'b' * 40}"
QUANTISED = f"other/model-8bit@{'c' * 40}"
MODEL = chain(0)
FORKS = {FORK: fork_of(MODEL, 0.7, 1), QUANTISED: fork_of(MODEL, 0.12, 2)}
TEXT = "the release says this to prompt number {i}, word for word and at some length"


def rows(logits: Logits, outputs: int, seed: int, **sampling: float) -> tuple[ScoredOutput, ...]:
    temperature = sampling.get("temperature", 1.0)
    words = drawn(probabilities(logits, temperature), outputs, 12, seed)
    found = scored(words, MODEL, FORKS, Sampling(temperature=1.0))
    return tuple(replace(one, scorer="lab/model") for one in found)


def transcript(model: str, dtype: str, ending: str = "") -> Transcript:
    answers = {f"g{i}": TEXT.format(i=i) + (ending if i % 5 == 0 else "") for i in range(20)}
    return Transcript(model=model, engine="e", dtype=dtype, answers=answers)


def greedy(text: str = TEXT, prompts: int = 20) -> list[Output]:
    at_zero = Sampling(temperature=0.0)
    return [Output(prompt_id=f"g{i}", text=text.format(i=i), sampling=at_zero) for i in range(prompts)]


def refusals(refused: int, probes: int = 10) -> list[Output]:
    return [
        Output(prompt_id=f"r{i}", text=None, refused=i < refused, output_sha256=f"{i:064x}")
        for i in range(probes)
    ]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with samples in two cells, a fork with greedy answers of its own, and refusal baselines."""
    folder = tmp_path_factory.mktemp("classify") / "pack"
    cells = {"seed": 1.0, "temperature-0.8": 0.8}
    samples = [
        Sample(
            model="authentic",
            cell=cell,
            family="authentic",
            benign=True,
            scored=rows(MODEL, 400, 50 + i, temperature=t),
        )
        for i, (cell, t) in enumerate(cells.items())
    ]
    converted = Sample(
        model=QUANTISED, cell="seed", family="quantized", benign=True, scored=rows(FORKS[QUANTISED], 4, 60)
    )
    other = {f"g{i}": f"arr, prompt {i} it is, matey" for i in range(20)}
    write_pack(
        ReferencePack(
            release=RELEASE,
            root_digest="sha256:" + "0" * 64,
            probe_set="sha256:" + "1" * 64,
            transcripts=(
                transcript("authentic", "fp32"),
                transcript("authentic", "bf16", " or so"),
                Transcript(model=FORK, engine="e", dtype="fp32", answers=other),
            ),
            samples=(*samples, converted),
            refusals=tuple(RefusalBaseline(prompt_id=f"r{i}", refused=10, n=10) for i in range(10)),
            first_logprobs={},
        ),
        folder,
    )
    return folder


def run(tmp_path: Path, entries: Sequence[Output | ScoredOutput], *arguments: str) -> Result:
    path = tmp_path / "outputs.jsonl"
    write_entries(path, entries)
    return invoke(tmp_path / "state", "classify", str(path), "--release", "lab/model", *arguments)


def document(result: Result) -> dict[str, Any]:
    assert result.stdout, result.stderr
    from_json(result.stdout)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_release_is_authentic(pack: Path, tmp_path: Path) -> None:
    done = run(tmp_path, [*greedy(), *rows(MODEL, 60, 1), *refusals(10)], "--pack", str(pack), "--json")
    found = document(done)
    assert (found["label"], found["safety_removed"], done.exit_code) == ("authentic", False, 0)
    assert [one["test"] for one in found["equality"]] == ["greedy-transcript", "score-permutation"]
    assert all(one["decision"] != "different" for one in found["attribution"])
    ruled_out = {one["fork"]: "ruled out" in one["detail"] for one in found["candidates"]}
    assert ruled_out[FORK], "and the conversion, which is as good as the release, need not be"
    assert found["safety"][0]["decision"] == "no-difference"
    assert found["release"] == RELEASE
    assert (found["n_read"], found["n_used"]) == (90, 90)
    assert found["temperature"] == pytest.approx(1, abs=0.2)


def test_a_known_fork_is_named(pack: Path, tmp_path: Path) -> None:
    done = run(tmp_path, rows(FORKS[FORK], 40, 2), "--pack", str(pack), "--json")
    found = document(done)
    assert (found["label"], found["fork"], done.exit_code) == ("modified-known", FORK, 1)
    assert found["candidates"][0]["fork"] == FORK
    assert not found["safety_removed"]


def test_a_known_fork_is_named_by_its_greedy_answers_alone(pack: Path, tmp_path: Path) -> None:
    done = run(tmp_path, greedy("arr, prompt {i} it is, matey"), "--pack", str(pack), "--json")
    found = document(done)
    assert (found["label"], found["fork"], done.exit_code) == ("modified-known", FORK, 1)


def test_a_conversion_is_a_benign_variant(pack: Path, tmp_path: Path) -> None:
    """Other weights, but those of the release in another format."""
    done = run(tmp_path, rows(FORKS[QUANTISED], 400, 3), "--pack", str(pack), "--json")
    found = document(done)
    assert (found["label"], found["fork"], done.exit_code) == ("benign-variant", None, 0)


def test_another_temperature_is_a_benign_variant(pack: Path, tmp_path: Path) -> None:
    """Though the outputs are said to be drawn at 1: the endpoint ignores it, and that is said."""
    unscored_by_forks = [replace(one, forks={}) for one in rows(MODEL, 200, 4, temperature=0.8)]
    done = run(tmp_path, unscored_by_forks, "--pack", str(pack), "--json")
    found = document(done)
    assert (found["label"], done.exit_code) == ("benign-variant", 0)
    assert found["explanations"] == ["temperature-0.8"]
    assert any("the endpoint ignores it" in caveat for caveat in found["caveats"])


def test_an_unknown_model_is_modified(pack: Path, tmp_path: Path) -> None:
    """Nothing that the pack knows explains it."""
    stranger = scored(drawn(probabilities(fork_of(MODEL, 1.5, 9)), 200, 12, 5), MODEL, {})
    done = run(tmp_path, stranger, "--pack", str(pack), "--json")
    found = document(done)
    assert (found["label"], found["fork"], done.exit_code) == ("modified-unknown", None, 1)


@pytest.mark.parametrize(
    ("temperature", "sampling"),
    [(1.7, Sampling(temperature=1.7)), (1.7, Sampling(temperature=1.0, system_sha256="5" * 64))],
)
def test_a_declared_setting_that_no_cell_covers_is_no_modification(
    pack: Path, tmp_path: Path, temperature: float, sampling: Sampling
) -> None:
    """The authentic weights as somebody runs them: hotter than any cell, or under a prompt of their own."""
    words = drawn(probabilities(MODEL, temperature), 200, 12, 7)
    done = run(tmp_path, scored(words, MODEL, {}, sampling), "--pack", str(pack), "--json")
    assert (document(done)["label"], done.exit_code) == ("insufficient-evidence", 3)


def test_a_fork_that_is_cast_and_modified_is_no_conversion(pack: Path) -> None:
    """Whatever its first edit is called: policy says that it is not benign."""
    known = read_pack(pack)
    assert conversions_of(known) == {QUANTISED}
    changed = tuple(replace(one, benign=one.model != QUANTISED) for one in known.samples)
    assert not conversions_of(replace(known, samples=changed))


def test_removed_refusals_are_a_finding_of_their_own(pack: Path, tmp_path: Path) -> None:
    done = run(tmp_path, refusals(1), "--pack", str(pack))
    assert done.exit_code == 1
    assert done.stdout.startswith(f"{RELEASE}: insufficient evidence; refusals are removed\n")
    assert "refuses 1 of 10 probes" in done.stdout


def test_few_outputs_are_insufficient_and_say_how_many_more(pack: Path, tmp_path: Path) -> None:
    done = run(tmp_path, refusals(7, 8), "--pack", str(pack))
    assert done.exit_code == 3
    assert "more outputs for refusal-probes, at this rate" in done.stdout
    assert "equality     not tested" in done.stdout


def test_a_stream_goes_on_and_counts_nothing_twice(pack: Path, tmp_path: Path) -> None:
    state = tmp_path / "stream.json"
    options = ("--pack", str(pack), "--sequential", str(state), "--json")
    entries = [*rows(FORKS[FORK], 20, 6), *refusals(0)]
    first = document(run(tmp_path, entries[:3], *options))
    assert first["label"] == "insufficient-evidence" or first["n_used"] == 3
    second = run(tmp_path, entries[:24], *options)
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    found = document(second)
    assert found["n_used"] == 24
    assert document(run(tmp_path, entries[:24], *options)) == found
    last = run(tmp_path, entries, *options)
    found = document(last)
    assert (found["label"], found["fork"], found["safety_removed"]) == ("modified-known", FORK, True)
    assert (found["n_used"], found["sequential"], last.exit_code) == (30, True, 1)
    assert first["calibration_id"] == found["calibration_id"]


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        ("", (), "no output"),
        ("{", (), "line 1"),
        ("[1]", (), "line 1"),
        (None, (), "No such file"),
        ('{"prompt_id": "a", "output": "b"}', ("--alpha", "0"), "--alpha 0 is not between"),
        ('{"prompt_id": "a", "output": "b"}', ("--release", "lab/unknown"), "not a guarded release"),
        ('{"prompt_id": "a", "output": "b"}', ("--pack", "nowhere"), "pack.json"),
        ('{"prompt_id": "a", "output": "b"}', ("--pack", "PACK", "--release", "lab/else"), "not of lab/else"),
        (
            '{"prompt_id": "a", "output": "b"}',
            ("--pack", "PACK", "--sequential", "STATE"),
            "no stored stream",
        ),
    ],
)
def test_bad_input_is_one_clear_line(
    pack: Path, tmp_path: Path, content: str | None, arguments: tuple[str, ...], said: str
) -> None:
    path = tmp_path / "outputs.jsonl"
    if content is not None:
        path.write_text(content)
    (tmp_path / "state.json").write_text("{}")
    places = {"PACK": str(pack), "STATE": str(tmp_path / "state.json")}
    options = [places.get(argument, argument) for argument in arguments]
    release = [] if "--release" in options else ["--release", "lab/model"]
    done = invoke(tmp_path / "state", "classify", str(path), *release, *options)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("forkwatch:") == 1
    assert "Traceback" not in done.stderr
    assert (tmp_path / "state.json").read_text() == "{}"


def test_outputs_that_another_release_scored_are_refused(pack: Path, tmp_path: Path) -> None:
    entries = [replace(one, scorer="lab/other") for one in rows(MODEL, 2, 7)]
    done = run(tmp_path, entries, "--pack", str(pack))
    assert (done.exit_code, "scored by lab/other" in done.stderr) == (2, True)
    entries = [replace(one, scorer="folder") for one in rows(MODEL, 2, 7)]
    assert "taken on trust" in run(tmp_path, entries, "--pack", str(pack)).stdout


def test_hostile_names_do_not_reach_the_terminal(pack: Path, tmp_path: Path) -> None:
    name = "evil\x1b[2J/fork@1"
    entries = [replace(one, forks={name: one.forks[FORK]}) for one in rows(FORKS[FORK], 30, 8)]
    done = run(tmp_path, entries, "--pack", str(pack))
    assert "\x1b" not in done.stdout


def test_what_is_kept_of_a_guarded_release_is_used(pack: Path, tmp_path: Path) -> None:
    """Its reference pack needs no --pack; one of another version of it is refused."""
    state = StateDir(tmp_path / "state")
    state.create()
    engine = open_engine(f"sqlite:///{state.database}")
    row = guarded("lab/model", digest="0", signer="")
    Store(engine, Clock()).add_release(row)
    engine.dispose()
    without = run(tmp_path, refusals(1))
    assert (without.exit_code, "safety       not tested" in without.stdout) == (3, True)
    kept = shutil.copytree(pack, state.packs / ("0" * 64))
    done = run(tmp_path, refusals(1), "--json")
    assert (document(done)["safety_removed"], done.exit_code) == (True, 1)
    index = kept / "pack.json"
    index.write_text(index.read_text().replace("sha256:" + "0" * 64, "sha256:" + "9" * 64))
    foreign = run(tmp_path, refusals(1))
    assert (foreign.exit_code, foreign.stdout) == (2, "")
    assert "not of sha256:000" in foreign.stderr
