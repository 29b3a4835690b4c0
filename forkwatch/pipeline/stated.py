"""What a repository states of its own making, as numbers: steps, examples, hours.

Hostile text. Each file is read up to a bound; from it come only numbers within a plausible range, and names
of hardware from a list of ours. Nothing is parsed but JSON; YAML is looked at line by line. What is stated is
stated, not true: `evals.effort` keeps it apart from what the weights show.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields

from evals.effort import Basis, Evidence, Fact, Statements
from evals.interface import Unmeasured

TRAINER_STATE = "trainer_state.json"
CARD = "README.md"
REPRODUCTION = "reproduce/reproduce.json"
MERGE = ("mergekit_config.yml", "mergekit_config.yaml")
RESULTS = ("train_results.json", "all_results.json")
ADAPTER = "adapter_config.json"
FILES = (TRAINER_STATE, *RESULTS, REPRODUCTION, *MERGE, ADAPTER, CARD)
"""Files that are looked at, those a program wrote first: the first that states a number has the word."""
MAX_BYTES = 4 << 20
"""Of one file. A trainer's log of 10,000 steps takes about 2 MB."""
MAX_TEXT = 200_000
"""Characters of a card or of a merge's recipe."""
MAX_LINE = 2_000

RANGES: Mapping[str, tuple[float, float]] = {
    "steps": (1, 1e8),
    "examples": (1, 1e10),
    "epochs": (1e-3, 1e3),
    "batch": (1, 1e6),
    "sequence_length": (8, 1e7),
    "tokens": (1, 1e14),
    "flops": (1e6, 1e26),
    "hours": (1e-3, 1e6),
    "devices": (1, 1e5),
    "parents": (1, 100),
    "adapter_rank": (1, 65_536),
    "trials": (1, 1e6),
}
"""Least and greatest plausible value. What lies outside is not stated, rather than clipped."""

Found = Iterator[tuple[str, float]]


def read_statements(texts: Mapping[str, str], unread: Mapping[str, str]) -> Statements:
    """The numbers in the texts of `FILES`, by path; `unread` says of others why they could not be read."""
    facts: dict[str, Fact] = {}
    hardware = ""
    for path in FILES:
        if path not in texts:
            continue
        for name, value in _READERS[path](texts[path]):
            low, high = RANGES[name]
            if math.isfinite(value) and low <= value <= high:
                facts.setdefault(name, Fact(value, Basis.STATED, path))
        if path == CARD:
            hardware = _hardware(texts[path][:MAX_TEXT])
    gap = Unmeasured(_why_none(texts, unread))
    numbers: dict[str, Evidence] = {name: facts.get(name, gap) for name in RANGES}
    return Statements(hardware=hardware, **numbers)


def _why_none(texts: Mapping[str, str], unread: Mapping[str, str]) -> str:
    if unread:
        path, reason = next(iter(sorted(unread.items())))
        return f"not stated where it was looked; {path} was not read: {reason}"
    return (
        f"not stated in {', '.join(sorted(texts))}" if texts else "the repository has no file that would say"
    )


# --- JSON ---


def _object(text: str) -> Mapping[str, object]:
    """The JSON object in a text; empty for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _numbers(document: object, names: Mapping[str, str]) -> Found:
    """(our name, value) of the fields that hold a plain number. `True` is none."""
    if isinstance(document, dict):
        for field, name in names.items():
            value = document.get(field)
            if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
                yield name, float(value)


def _trainer_state(text: str) -> Found:
    """`TrainerState` of transformers."""
    names = {
        "global_step": "steps",
        "epoch": "epochs",
        "num_input_tokens_seen": "tokens",
        "total_flos": "flops",
    }
    yield from _numbers(_object(text), names)


def _results(text: str) -> Found:
    """What the `Trainer` of transformers saves as metrics."""
    document = _object(text)
    yield from _numbers(document, {"train_samples": "examples", "epoch": "epochs", "total_flos": "flops"})
    for _, seconds in _numbers(document, {"train_runtime": "hours"}):
        yield "hours", seconds / 3600


def _adapter(text: str) -> Found:
    yield from _numbers(_object(text), {"r": "adapter_rank"})


def _reproduction(text: str) -> Found:
    yield from _numbers(_object(text).get("settings"), {"n_trials": "trials"})


# --- text ---

_MODEL = re.compile(r"\s{0,40}(?:-\s{1,8})?(?:model|base_model)\s{0,8}:\s{0,8}(\S{1,200})")


def _merge(text: str) -> Found:
    """Distinct models that a merge's recipe names."""
    matches = (_MODEL.match(line[:MAX_LINE]) for line in text[:MAX_TEXT].splitlines())
    models = {match[1] for match in matches if match}
    if models:
        yield "parents", float(len(models))


_FIELD = re.compile(
    r"[\s\-*|`]{0,12}([A-Za-z_ ]{3,40}?)[`*\s]{0,8}[:|=]\s{0,8}`?([0-9][0-9_,.eE+\-]{0,20})\b"
)
_FIELDS = {
    "training_steps": "steps",
    "max_steps": "steps",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "epochs": "epochs",
    "total_train_batch_size": "batch",
    "effective_batch_size": "batch",
    "max_seq_length": "sequence_length",
    "max_seq_len": "sequence_length",
    "max_length": "sequence_length",
    "sequence_len": "sequence_length",
    "cutoff_len": "sequence_length",
    "num_devices": "devices",
    "train_samples": "examples",
    "training_samples": "examples",
    "n_trials": "trials",
}
"""Names in the hyper-parameter lists of transformers, axolotl, LLaMA-Factory and their like."""
_FACTORS = ("train_batch_size", "gradient_accumulation_steps", "num_devices")
"""Where no total is stated, the batch is their product."""
_COUNT = r"([0-9][0-9,.]{0,15})\s?(k|m|thousand|million)?"
_ABOUT = r"(?:about\s|~\s?|approximately\s)?"
_ITEMS = "(?:examples|samples|rows|conversations|pairs|prompts|instructions)"
_PROSE = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        (
            "examples",
            rf"\b(?:trained|fine-?tuned)\b[^\n]{{0,80}}?\bon\s{_ABOUT}{_COUNT}\s(?:\w{{1,20}}\s){{0,2}}{_ITEMS}\b",
        ),
        ("epochs", rf"\bfor\s{_COUNT}\sepochs?\b"),
        ("steps", rf"\bfor\s{_COUNT}\s(?:training\s)?steps\b"),
        ("hours", rf"\b(?:took|for|in)\s{_ABOUT}{_COUNT}\s(?:gpu[- ])?hours?\b"),
        ("trials", rf"\b(?:over|after|of|with)\s{_COUNT}\s(?:optimi[sz]ation\s)?trials\b"),
    )
)
_SCALE = {"": 1.0, "k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6}


def _card(text: str) -> Found:
    """Lists of hyper-parameters first, then sentences."""
    factors: dict[str, float] = {}
    for line in text[:MAX_TEXT].splitlines():
        match = _FIELD.match(line[:MAX_LINE])
        value = None if match is None else _number(match[2])
        if match is None or value is None:
            continue
        name = re.sub(r"\s+", "_", match[1].strip().lower())
        if name in _FACTORS:
            factors.setdefault(name, value)
        if name in _FIELDS:
            yield _FIELDS[name], value
    if "train_batch_size" in factors:
        yield "batch", math.prod(min(value, 1e6) for value in factors.values())
    for line in text[:MAX_TEXT].splitlines():
        for name, pattern in _PROSE:
            if (found := pattern.search(line[:MAX_LINE])) and (value := _number(found[1])) is not None:
                yield name, value * _SCALE[(found[2] or "").lower()]


def _number(text: str) -> float | None:
    """A number as people write it: `1,000`, `3.0`, `2_000`; None for what is none."""
    plain = re.sub(r"[,_](?=\d{3}(?:\D|$))", "", text.rstrip(".,+-"))
    try:
        return float(plain)
    except ValueError:
        return None


_HARDWARE = re.compile(
    r"\b(A100|A800|H100|H200|H800|B200|GH200|V100|P100|T4|L4|L40S?|A10G?|A40|A6000|MI2[15]0X?|MI300X|"
    r"RTX ?[2-5]0[5-9]0(?: ?Ti)?|TPU ?v[2-6][ep]?)\b"
)


def _hardware(text: str) -> str:
    match = _HARDWARE.search(text)
    return "" if match is None else match[1]


_READERS: Mapping[str, Callable[[str], Found]] = {
    TRAINER_STATE: _trainer_state,
    **dict.fromkeys(RESULTS, _results),
    REPRODUCTION: _reproduction,
    **dict.fromkeys(MERGE, _merge),
    ADAPTER: _adapter,
    CARD: _card,
}

if set(RANGES) | {"hardware"} != {field.name for field in fields(Statements)}:
    raise AssertionError("every number that can be stated has a plausible range")
