"""Probes: plain requests that invite free text, to tell models apart by how they answer.

One half is public (`PROBES`). The other is drawn for a release and a quarter from templates and fillers, by
HMAC-SHA256 under the operator's secret: whoever publishes a fork cannot know it, and it changes before it can
be learned. What can be known is the two million sentences it is drawn from. All of them are harmless.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from string import Formatter
from typing import Final

from evals.interface import SuiteError

PROBES: Final = Path(__file__).parents[1] / "prompts" / "probes.json"
SCHEMA: Final = "forkwatch.probes/1"
PRIVATE: Final = 40
"""Private probes of a release and a quarter: as many as public ones."""

_ID = re.compile(r"private-(\d{4}q[1-4])-[0-9a-f]{12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Probe:
    """One request."""

    id: str
    """`probe-<kind>-<number>`, or `private-<quarter>-<12 hex digits>`, which says nothing of the text."""
    kind: str
    text: str

    @property
    def private(self) -> bool:
        """Whether it belongs to the half that is not published."""
        return private_quarter(self.id) is not None


@dataclass(frozen=True, slots=True)
class ProbeFile:
    """What the public file holds."""

    probes: tuple[Probe, ...]
    templates: tuple[tuple[str, str], ...]
    """(kind, text with `{slots}`)."""
    fillers: Mapping[str, tuple[str, ...]]
    """Slot to what can stand there."""


@dataclass(frozen=True, slots=True)
class ProbeSet:
    """Both halves, or the public one alone."""

    probes: tuple[Probe, ...]
    """In random order, so that any first `n` are a random choice, as tests on a part of them need."""
    quarter: str | None
    """Of the private half; None: there is none."""

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of all ids and texts."""
        content = json.dumps(sorted((probe.id, probe.text) for probe in self.probes))
        return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"

    @property
    def texts(self) -> Mapping[str, str]:
        """Id to text."""
        return {probe.id: probe.text for probe in self.probes}


def load_probes(path: Path = PROBES) -> ProbeFile:
    """Read the public file.

    Raises:
        SuiteError: it cannot be read, or breaks the format.
    """
    try:
        document = json.loads(path.read_bytes())
        probes = tuple(Probe(row["id"], row["kind"], row["text"]) for row in document["probes"])
        templates = tuple((row["kind"], row["text"]) for row in document["templates"])
        fillers = {slot: tuple(values) for slot, values in document["fillers"].items()}
        slots = {slot for _, text in templates for slot in _slots(text)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise SuiteError(f"{path}: not a file of probes") from error
    if document.get("schema") != SCHEMA or not probes or not templates or slots - fillers.keys():
        raise SuiteError(f"{path}: not a whole file of probes")
    return ProbeFile(probes, templates, fillers)


def quarter_of(now: datetime) -> str:
    """E.g. `2026q4`: private probes live as long."""
    return f"{now.year:04}q{(now.month + 2) // 3}"


def private_quarter(probe_id: str) -> str | None:
    """The quarter of a private probe's id; None of any other."""
    found = _ID.fullmatch(probe_id)
    return None if found is None else found[1]


def private_probes(file: ProbeFile, secret: bytes, release: str, quarter: str) -> tuple[Probe, ...]:
    """The private half; the same for the same arguments, and not to be guessed without the secret.

    Args:
        file: Templates and fillers; each template is used equally often.
        secret: The operator's, 32 bytes.
        release: What the probes are for: the root digest of a release.
        quarter: Of `quarter_of`.
    """
    found: dict[str, Probe] = {}
    for number in count():
        kind, template = file.templates[number % len(file.templates)]
        draw = _draws(secret, f"{SCHEMA}/{release}/{quarter}/{number}")
        chosen = {slot: file.fillers[slot][next(draw) % len(file.fillers[slot])] for slot in _slots(template)}
        text = template.format_map(chosen)
        text = text[0].upper() + text[1:]
        if text not in found:
            name = _mac(secret, f"id/{release}/{quarter}/{text}").hex()[:12]
            found[text] = Probe(f"private-{quarter}-{name}", kind, text)
        if len(found) == PRIVATE:
            return tuple(found.values())
    raise AssertionError("counting does not end")


def probe_set(
    file: ProbeFile, private: Iterable[Probe] = (), quarter: str | None = None, order: bytes = b""
) -> ProbeSet:
    """Both halves, or the public one, in the random order that `order` gives."""
    by_id = {probe.id: probe for probe in (*file.probes, *private)}
    return ProbeSet(tuple(by_id[name] for name in shuffled(by_id, order)), quarter)


def order_key(secret: bytes, release: str, quarter: str) -> bytes:
    """What the order of a release's probes in a quarter comes from."""
    return _mac(secret, f"order/{release}/{quarter}")


def shuffled(ids: Iterable[str], key: bytes) -> list[str]:
    """In a random order that depends on the key alone: the first of them are a random choice."""
    return sorted(ids, key=lambda name: _mac(key, name))


def _slots(template: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(template) if name is not None]


def _draws(secret: bytes, what: str) -> Iterator[int]:
    """Numbers of 64 bits, each from a code of its own."""
    for number in count():
        yield int.from_bytes(_mac(secret, f"{what}/{number}")[:8])


def _mac(secret: bytes, what: str) -> bytes:
    return hmac.new(secret, what.encode(), hashlib.sha256).digest()
