"""Reference packs on the disk."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detector.outputs.interface import (
    BadPackError,
    Output,
    ReferencePack,
    RefusalBaseline,
    Sample,
    Sampling,
    ScoredOutput,
    Transcript,
)
from detector.outputs.pack import INDEX, NOT_SCORED, read_pack, write_pack
from tests.detector.outputs.speakers import AUTHENTIC, Speaker, sample

SCORES = ("logp", "entropy", "variance", "rank", "above")
FORK = "bad/fork@" + "b" * 40


def a_pack() -> ReferencePack:
    scored = list(sample("authentic", AUTHENTIC, 1, 0, benign=True).scored)
    scored[0] = replace(scored[0], forks={FORK: scored[0].authentic.logp - 1})
    scored[2] = replace(scored[2], forks={FORK: scored[2].authentic.logp, "c/d@1": scored[2].authentic.logp})
    odd = Output(
        prompt_id="é:\n", text="\u2028\x00'", refused=False, prompt="?", sampling=Sampling(temperature=0.0),
        finish_reason="stop", top_logprobs=(("a", -0.1), ("\n", -3.0)), at="2026-11-30T00:00:00Z",
    )  # fmt: skip
    kept = Output(prompt_id="h", text=None, refused=True)
    unscored = tuple(ScoredOutput(one, NOT_SCORED, {}) for one in (odd, kept))
    return ReferencePack(
        release="good/model@" + "a" * 40,
        root_digest="sha256:" + "1" * 64,
        probe_set="sha256:" + "2" * 64,
        transcripts=(
            Transcript(model="authentic", engine="e/1", dtype="bf16", answers={"p": "a\nb", "q": ""}),
        ),
        samples=(
            Sample(model="authentic", cell="seed", family="authentic", benign=True, scored=tuple(scored)),
            Sample(model=FORK, cell="seed", family="merge", benign=False, scored=unscored),
            sample(FORK, Speaker(1, 1.0), 1, 1, cell="bf16", family="merge"),
        ),
        refusals=(RefusalBaseline(prompt_id="h", refused=9, n=10),),
        first_logprobs={"seed": {"p": {"a": -0.5, "<b>": -1.5}}},
    )


def same(left: ReferencePack, right: ReferencePack) -> bool:
    """Whether two packs say the same; arrays have no equality of their own."""

    def plain(pack: ReferencePack) -> object:
        return replace(pack, samples=()), [
            (replace(one, scored=()), [
                (each.output,
                 [getattr(each.authentic, name).tolist() for name in SCORES],
                 {fork: array.tolist() for fork, array in each.forks.items()})
                for each in one.scored])
            for one in pack.samples
        ]  # fmt: skip

    return plain(left) == plain(right)


def test_a_pack_that_is_read_is_the_one_that_was_written(tmp_path: Path) -> None:
    """Outputs, scores, transcripts, refusals and logprobs; strange text too; the same bytes each time."""
    digest = write_pack(a_pack(), tmp_path / "pack")
    assert same(read_pack(tmp_path / "pack", root_digest=a_pack().root_digest), a_pack())
    assert write_pack(a_pack(), tmp_path / "again") == digest
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "pack").iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "pack").stat().st_mode) == 0o700


def test_a_smaller_pack_leaves_nothing_of_the_larger_one(tmp_path: Path) -> None:
    """Old data goes; what is not ours stays."""
    write_pack(a_pack(), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    less = replace(a_pack(), samples=(), transcripts=())
    write_pack(less, tmp_path)
    assert same(read_pack(tmp_path), less)
    assert len(list(tmp_path.iterdir())) == 3  # index, transcripts, notes


def test_every_damage_is_noticed(tmp_path: Path) -> None:
    """A flipped byte in any file, a missing file, another release, a path out of the folder."""
    write_pack(a_pack(), tmp_path)
    with pytest.raises(BadPackError, match="not of sha256:other"):
        read_pack(tmp_path, root_digest="sha256:other")
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        if not whole:
            continue
        path.write_bytes(whole[: len(whole) // 2] + b"\xff" + whole[len(whole) // 2 + 1 :])
        with pytest.raises(BadPackError):
            read_pack(tmp_path)
        path.write_bytes(whole)
    index = (tmp_path / INDEX).read_text()
    (tmp_path / INDEX).write_text(index.replace('"outputs-', '"../outputs-'))
    with pytest.raises(BadPackError, match="no part of a pack"):
        read_pack(tmp_path)
    (tmp_path / INDEX).unlink()
    with pytest.raises(BadPackError):
        read_pack(tmp_path)


def test_a_score_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    """Also where every digest is right."""
    pack = a_pack()
    wrong = replace(pack.samples[0].scored[0].authentic, logp=np.full(30, np.nan, np.float32))
    scored = (replace(pack.samples[0].scored[0], authentic=wrong),)
    write_pack(replace(pack, samples=(replace(pack.samples[0], scored=scored),)), tmp_path)
    with pytest.raises(BadPackError, match="damaged"):
        read_pack(tmp_path)
