"""A reference pack as a folder: outputs as JSON lines, scores as safetensors, `pack.json` over all of it.

Data files are named by their digest and `pack.json` is replaced last, in one step: a reader sees the pack
from before or the new one, whenever the writer is killed. Files are 0600: samples may hold answers that stay
here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detector.outputs.interface import (
    BadPackError,
    Output,
    ReferencePack,
    RefusalBaseline,
    Sample,
    ScoredOutput,
    TokenScores,
    Transcript,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA = "forkwatch.reference-pack/1"
INDEX = "pack.json"
MAX_INDEX = 256 << 20
MAX_FILE = 4 << 30
"""Bytes of one data file: 1,000 aggregates of 40 outputs of 48 tokens have 40 MB of scores a cell."""
_DATA = re.compile(r"(?:outputs|transcripts)-[0-9a-f]{64}\.jsonl|scores-[0-9a-f]{64}\.safetensors")
_SCORES = ("logp", "entropy", "variance", "rank", "above")

NOT_SCORED = TokenScores(*(np.empty(0, np.float32) for _ in _SCORES))
"""Scores of an output that nobody scored: no token. Only what needs no scores can be said of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _SampleEntry:
    model: str
    cell: str
    family: str
    benign: bool
    forks: tuple[str, ...]
    outputs: str
    scores: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    schema: str
    release: str
    root_digest: str
    probe_set: str
    transcripts: str
    samples: tuple[_SampleEntry, ...]
    refusals: tuple[RefusalBaseline, ...]
    first_logprobs: Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One greedy answer."""

    model: str
    engine: str
    dtype: str
    prompt_id: str
    text: str


def write_pack(pack: ReferencePack, folder: Path) -> str:
    """Write a pack, over the one that is there; what that one named and this does not is removed.

    Returns:
        `sha256:<hex>` of `pack.json`, which names every other file by digest.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    index = {
        "schema": SCHEMA,
        "release": pack.release,
        "root_digest": pack.root_digest,
        "probe_set": pack.probe_set,
        "transcripts": _keep(folder, "transcripts", ".jsonl", _transcript_lines(pack.transcripts)),
        "samples": [_write_sample(folder, sample) for sample in pack.samples],
        "refusals": [
            {"prompt_id": one.prompt_id, "refused": one.refused, "n": one.n} for one in pack.refusals
        ],
        "first_logprobs": {
            cell: {prompt: dict(tokens) for prompt, tokens in prompts.items()}
            for cell, prompts in pack.first_logprobs.items()
        },
    }
    raw = json.dumps(index, ensure_ascii=True, allow_nan=False, sort_keys=True, indent=1).encode()
    write_private(folder / INDEX, raw)
    named = _named(index)
    for path in folder.iterdir():
        if path.name not in named and _DATA.fullmatch(path.name):
            path.unlink()
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def read_pack(folder: Path, *, root_digest: str | None = None) -> ReferencePack:
    """Read a pack; every file is held against its digest.

    Args:
        folder: what `write_pack` filled.
        root_digest: of the release it must belong to; None: of any.

    Raises:
        BadPackError: it is none, is damaged, or belongs to another release.
    """
    index = _read_index(folder)
    if root_digest is not None and index.root_digest != root_digest:
        raise BadPackError(f"{folder}: the reference pack is of {index.root_digest}, not of {root_digest}")
    return ReferencePack(
        release=index.release,
        root_digest=index.root_digest,
        probe_set=index.probe_set,
        transcripts=_read_transcripts(folder, index.transcripts),
        samples=tuple(_read_sample(folder, entry) for entry in index.samples),
        refusals=index.refusals,
        first_logprobs=index.first_logprobs,
    )


def samples_digest(pack: ReferencePack) -> str:
    """Of the outputs by model and cell, whether or not the pack lies in a folder: `sha256:<hex>`."""
    content = [
        [sample.model, sample.cell, [(one.output.prompt_id, one.output.text) for one in sample.scored]]
        for sample in pack.samples
    ]
    return f"sha256:{hashlib.sha256(json.dumps(content).encode()).hexdigest()}"


def write_private(path: Path, content: bytes) -> None:
    """Write a file that its owner alone can read, whole or not at all."""
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


# --- writing ---


def _keep(folder: Path, kind: str, suffix: str, content: bytes) -> str:
    """The name of a data file that holds the content."""
    name = f"{kind}-{hashlib.sha256(content).hexdigest()}{suffix}"
    write_private(folder / name, content)
    return name


def _named(index: Mapping[str, Any]) -> set[str]:
    samples = index["samples"]
    return {index["transcripts"], *(one[file] for one in samples for file in ("outputs", "scores"))}


def _write_sample(folder: Path, sample: Sample) -> dict[str, object]:
    from safetensors.numpy import save

    forks = tuple(dict.fromkeys(fork for scored in sample.scored for fork in scored.forks))
    lines = b"".join(_output_line(scored.output) for scored in sample.scored)
    return {
        "model": sample.model,
        "cell": sample.cell,
        "family": sample.family,
        "benign": sample.benign,
        "forks": list(forks),
        "outputs": _keep(folder, "outputs", ".jsonl", lines),
        "scores": _keep(folder, "scores", ".safetensors", save(_arrays(sample.scored, forks))),
    }


def _output_line(output: Output) -> bytes:
    from pydantic import TypeAdapter

    found = TypeAdapter(Output).dump_python(output, mode="json", exclude_defaults=True)
    return _json_line(found)


def _json_line(value: object) -> bytes:
    """A lone surrogate, which JSON can carry and UTF-8 cannot, becomes a question mark."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n"


def _arrays(scored: Sequence[ScoredOutput], forks: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Scores of all outputs end to end; `starts` says where each begins, `has.<j>` which know fork j."""
    lengths = [len(one.authentic.logp) for one in scored]
    arrays: dict[str, NDArray[Any]] = {"starts": np.cumsum([0, *lengths], dtype=np.int64)}
    for name in _SCORES:
        arrays[name] = _joined([getattr(one.authentic, name) for one in scored])
    for number, fork in enumerate(forks):
        arrays[f"has.{number}"] = np.array([fork in one.forks for one in scored], np.uint8)
        arrays[f"fork.{number}"] = _joined([one.forks[fork] for one in scored if fork in one.forks])
    return arrays


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    return np.concatenate([np.empty(0, np.float32), *(np.asarray(part, np.float32) for part in parts)])


def _transcript_lines(transcripts: Sequence[Transcript]) -> bytes:
    lines = [
        {"model": one.model, "engine": one.engine, "dtype": one.dtype, "prompt_id": prompt, "text": text}
        for one in transcripts
        for prompt, text in one.answers.items()
    ]
    return b"".join(_json_line(line) for line in lines)


# --- reading ---


def _read_index(folder: Path) -> _Index:
    from pydantic import TypeAdapter

    path = folder / INDEX
    try:
        if path.stat().st_size > MAX_INDEX:
            raise BadPackError(f"{path} is larger than {MAX_INDEX} bytes")
        index = TypeAdapter(_Index).validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadPackError(f"{path} is not the index of a reference pack") from error
    if index.schema != SCHEMA:
        raise BadPackError(f"{path} is not {SCHEMA}")
    return index


def _read_data(folder: Path, name: str) -> bytes:
    """The content of a data file, if its name is that content's digest."""
    if not _DATA.fullmatch(name):
        raise BadPackError(f"{folder / INDEX} names a file that is no part of a pack")
    try:
        if (folder / name).stat().st_size > MAX_FILE:
            raise BadPackError(f"{folder / name} is larger than {MAX_FILE} bytes")
        content = (folder / name).read_bytes()
    except OSError as error:
        raise BadPackError(f"{folder / name} cannot be read") from error
    if hashlib.sha256(content).hexdigest() not in name:
        raise BadPackError(f"{folder / name} was changed since it was written")
    return content


def _read_transcripts(folder: Path, name: str) -> tuple[Transcript, ...]:
    from pydantic import TypeAdapter

    line = TypeAdapter(_Line)
    answers: dict[tuple[str, str, str], dict[str, str]] = {}
    try:
        for raw in _read_data(folder, name).splitlines():
            one = line.validate_json(raw)
            answers.setdefault((one.model, one.engine, one.dtype), {})[one.prompt_id] = one.text
    except ValueError as error:
        raise BadPackError(f"{folder / name} does not hold transcripts") from error
    return tuple(
        Transcript(model=model, engine=engine, dtype=dtype, answers=found)
        for (model, engine, dtype), found in answers.items()
    )


def _read_sample(folder: Path, entry: _SampleEntry) -> Sample:
    from pydantic import TypeAdapter
    from safetensors import SafetensorError
    from safetensors.numpy import load

    line = TypeAdapter(Output)
    try:
        outputs = [line.validate_json(raw) for raw in _read_data(folder, entry.outputs).splitlines()]
        scored = _scored(outputs, load(_read_data(folder, entry.scores)), entry.forks)
    except (ValueError, KeyError, SafetensorError) as error:
        raise BadPackError(f"{folder}: the sample {entry.model}, {entry.cell} is damaged") from error
    return Sample(model=entry.model, cell=entry.cell, family=entry.family, benign=entry.benign, scored=scored)


def _scored(
    outputs: Sequence[Output], arrays: Mapping[str, NDArray[Any]], forks: Sequence[str]
) -> tuple[ScoredOutput, ...]:
    """Outputs with their parts of the arrays.

    Raises:
        ValueError: shapes do not fit, or a score is not finite.
        KeyError: an array is missing.
    """
    starts = arrays["starts"]
    lengths = np.diff(starts)
    sound = starts.shape == (len(outputs) + 1,) and starts.dtype == np.int64
    if not sound or starts[0] != 0 or (lengths < 0).any():
        raise ValueError("the scores are of other outputs")
    whole = [_finite(arrays[name], int(starts[-1])) for name in _SCORES]
    of_forks: list[dict[str, NDArray[np.float32]]] = [{} for _ in outputs]
    for number, fork in enumerate(forks):
        has = np.flatnonzero(arrays[f"has.{number}"][: len(outputs)])
        parts = _finite(arrays[f"fork.{number}"], int(lengths[has].sum()))
        for row, part in zip(has, np.split(parts, np.cumsum(lengths[has])[:-1]), strict=bool(len(has))):
            of_forks[row][fork] = part
    return tuple(
        ScoredOutput(
            output=output,
            authentic=TokenScores(*(array[starts[row] : starts[row + 1]] for array in whole)),
            forks=of_forks[row],
        )
        for row, output in enumerate(outputs)
    )


def _finite(array: NDArray[Any], length: int) -> NDArray[np.float32]:
    if array.dtype != np.float32 or array.shape != (length,) or not np.isfinite(array).all():
        raise ValueError("scores are not finite numbers, one a token")
    return array
