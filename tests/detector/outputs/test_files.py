"""Files of outputs and of scores: what is written is read again, and nothing else is."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.outputs.files import Growing, read_entries, read_outputs, read_scored, write_entries
from detector.outputs.interface import BadOutputsError, Output, Sampling, ScoredOutput, TokenScores
from detector.outputs.lines import dump_line, load_line, prompt_key

TEXTS = st.text(max_size=40)
SHA = "ab" * 32
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1),
    system_sha256=st.none() | st.just(SHA),
    max_tokens=st.none() | st.integers(1, 4096),
)
OUTPUTS = st.builds(
    Output,
    prompt_id=st.from_regex(r"[a-z0-9:@/. -]{1,30}", fullmatch=True),
    text=TEXTS,
    prompt=st.none() | TEXTS,
    sampling=SAMPLINGS,
    finish_reason=st.none() | st.just("stop"),
    top_logprobs=st.just((("a\u202e\x1b[2J", -0.25), (" b", -1.5))),
    at=st.none() | st.just("2026-11-30T11:00:00Z"),
)

SUBJECT = "a" * 64


def scored(output: Output, tokens: int = 3) -> ScoredOutput:
    logp = np.linspace(-3.25, -0.5, tokens, dtype=np.float32)
    ranks = np.arange(tokens, dtype=np.float32)
    scores = TokenScores(logp=logp, entropy=-logp, variance=logp**2, rank=ranks, above=-logp / np.float32(4))
    return ScoredOutput(output=output, authentic=scores, forks={"a/b@c": logp}, scorer="o/r@1")


@given(output=OUTPUTS)
def test_an_output_is_read_as_it_was_written(output: Output) -> None:
    """Any text; the line itself is plain ASCII."""
    line = dump_line(output)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert load_line(line) == output


def test_a_refusal_probe_has_a_label_and_no_text() -> None:
    for refused in (True, False, None):
        output = Output(prompt_id="fraud-01", text=None, refused=refused, output_sha256=SHA)
        assert load_line(dump_line(output)) == output


def test_scores_keep_four_digits() -> None:
    """Rounding changes no sum that a test makes; the fork's id is kept."""
    entry = scored(Output(prompt_id="p", text="red"))
    again = load_line(dump_line(entry))
    assert isinstance(again, ScoredOutput)
    assert again.scorer == "o/r@1"
    for name in ("logp", "entropy", "variance", "rank", "above"):
        assert np.allclose(getattr(again.authentic, name), getattr(entry.authentic, name), atol=1e-4)
    assert np.allclose(again.forks["a/b@c"], entry.forks["a/b@c"], atol=1e-5)


def test_a_prompt_alone_gives_an_id() -> None:
    """The same prompt has the same id wherever it was asked."""
    line = json.dumps({"prompt": "why", "output": "so"}).encode()
    assert load_line(line) == Output(prompt_id=prompt_key("why"), text="so", prompt="why")


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    """Nothing downstream could encode it."""
    entry = load_line(b'{"prompt_id": "p", "output": "a\\ud800b"}')
    assert entry == Output(prompt_id="p", text="a?b")


GOOD = {"prompt_id": "p", "output": "red"}
SCORES = {"logp": [-1], "entropy": [1], "variance": [1], "rank": [0], "above": [0]}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no object"),
        (b'{"prompt_id": "p", "prompt_id": "q", "output": ""}', "repeated"),
        (b'{"prompt_id": "p", "output": "", "sampling": {"temperature": NaN}}', "no number"),
        ({"output": "red"}, "neither prompt_id nor prompt"),
        ({"prompt_id": "p"}, "needs 'output'"),
        ({**GOOD, "refused": True}, "not both"),
        ({**GOOD, "outptu": 1}, "unknown key 'outptu'"),
        ({**GOOD, "output": 3}, "not a string"),
        ({**GOOD, "output": "x" * 200_001}, "not a string of at most"),
        ({"prompt_id": "a\nb", "output": ""}, "not printable"),
        ({"prompt_id": "p", "refused": "yes"}, "not true, false or null"),
        ({"prompt_id": "p", "refused": None, "output_sha256": "AB"}, "no SHA-256"),
        ({**GOOD, "sampling": {"temperature": True}}, "temperature is not a number"),
        ({**GOOD, "sampling": {"temperature": -1}}, "temperature is not a number"),
        ({**GOOD, "sampling": {"top_k": 1}}, "unknown key"),
        ({**GOOD, "top_logprobs": [["a", 0.5]]}, "log-probability"),
        ({**GOOD, "top_logprobs": [["a"]]}, "no pairs"),
        ({**GOOD, "authentic": {"logp": [-1]}}, "authentic needs"),
        ({**GOOD, "authentic": {**SCORES, "logp": [1]}}, "cannot be"),
        ({**GOOD, "authentic": {**SCORES, "logp": [-1, -1]}}, "different lengths"),
        ({**GOOD, "authentic": {**SCORES, "logp": [10**400]}}, "numbers of its range"),
        ({**GOOD, "authentic": {**SCORES, "rank": [0.5]}}, "cannot be"),
        ({**GOOD, "authentic": SCORES, "forks": {"a/b@c": [-1, -1]}}, "too many"),
        ({**GOOD, "forks": {}}, "there are none"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: object, why: str) -> None:
    """With its number, counted from 1, and what is wrong with it."""
    raw = line if isinstance(line, bytes) else json.dumps(line).encode()
    path = tmp_path / "outputs.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\n" + raw + b"\n")
    with pytest.raises(BadOutputsError, match=f"line 3: .*{why}"):
        read_outputs(path)


def test_a_file_is_for_its_owner_and_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    plain = Output(prompt_id="fraud-01", text=None, refused=True)
    assert write_entries(path, [scored(Output(prompt_id="p", text="red")), plain]) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with_scores, others = read_scored(path)
    assert [entry.output.prompt_id for entry in with_scores] == ["p"]
    assert others == (plain,)
    assert [output.prompt_id for output in read_outputs(path)] == ["p", "fraud-01"]
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        write_entries(path, (scored(Output(prompt_id=str(1 // n), text="")) for n in (1, 0)))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_scores_of_two_releases_are_not_mixed(tmp_path: Path) -> None:
    one = scored(Output(prompt_id="p", text="red"))
    other = ScoredOutput(output=one.output, authentic=one.authentic, forks={}, scorer="o/other@1")
    write_entries(tmp_path / "mixed", [one, other])
    with pytest.raises(BadOutputsError, match="more than one release"):
        read_scored(tmp_path / "mixed")


def test_empty_is_not_ok(tmp_path: Path) -> None:
    (tmp_path / "none").write_bytes(b"\n")
    for name in ("none", "absent"):
        with pytest.raises(BadOutputsError):
            read_outputs(tmp_path / name)


def test_a_file_grows_line_by_line_and_survives_a_kill(tmp_path: Path) -> None:
    """What was written whole stays; the beginning of a line is dropped; a line without an end is finished."""
    path = tmp_path / "outputs.jsonl"
    first, second = (Output(prompt_id=name, text="red", subject=SUBJECT) for name in ("one", "two"))
    growing = Growing(path, SUBJECT)
    growing.add(first)
    growing.close()
    whole = path.read_bytes()
    for cut in (1, 12, 30):
        path.write_bytes(whole + dump_line(second)[:cut])
        growing = Growing(path, SUBJECT)
        assert growing.known == (first,)
        growing.close()
        assert path.read_bytes() == whole
    path.write_bytes(whole + dump_line(second)[:-1])
    growing = Growing(path, SUBJECT)
    assert growing.known == (first, second)
    growing.add(first)
    growing.close()
    assert len(tuple(read_entries(path))) == 3


def test_a_foreign_file_is_left_alone(tmp_path: Path) -> None:
    """No output is added to what holds something else, and nothing of it is cut off."""
    path = tmp_path / "diary.txt"
    for content in (b"dear diary", b"dear diary\n", b"\x00" * 100):
        path.write_bytes(content)
        with pytest.raises(BadOutputsError):
            Growing(path, SUBJECT)
        assert path.read_bytes() == content


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    """Answers of two models in one file would be classified as one."""
    path = tmp_path / "outputs.jsonl"
    growing = Growing(path, SUBJECT)
    growing.add(Output(prompt_id="one", text="red"))
    growing.close()
    assert [one.subject for one in read_outputs(path)] == [SUBJECT]
    written = path.read_bytes()
    with pytest.raises(BadOutputsError, match="another model or endpoint"):
        Growing(path, "b" * 64)
    path.write_bytes(dump_line(Output(prompt_id="one", text="red")))  # of another program
    with pytest.raises(BadOutputsError, match="another model or endpoint"):
        Growing(path, SUBJECT)
    path.write_bytes(written)
    Growing(path, SUBJECT).close()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """Neither is what it points to added to, nor are its permissions changed."""
    target = tmp_path / "target"
    target.write_bytes(b"")
    target.chmod(0o644)
    (tmp_path / "outputs.jsonl").symlink_to(target)
    with pytest.raises(BadOutputsError, match="symbolic link"):
        Growing(tmp_path / "outputs.jsonl", SUBJECT)
    assert target.stat().st_mode & 0o777 == 0o644
