"""What the channels ask of a listing's row: what it declares, and whether its weights could be the release's.

All of it is cheap: every row of every listing goes through every channel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from crawler.card import repo_or_none, tag_claims
from crawler.interface import Candidate, Channel, Claim, Relation, RepoId, RepoSummary, Shape
from crawler.related import mentions
from crawler.sources.interface import Family

_PREFIX = "base_model:"
_TOLERANCE = 0.02
"""Of the parameter count: added tokens are below it, the next size of a family is above."""
_PACKING = 8
"""4-bit weights are packed eight to a word, so a quantised model may count an eighth of its parameters."""
_GGUF_NAMES = {"mistral": "llama", "smollm": "llama", "phi": "phi2", "gemma3text": "gemma3"}
"""Architectures that llama.cpp names otherwise than transformers, both without separators."""


def bases(row: RepoSummary) -> tuple[RepoId, ...]:
    """What a row declares as its base, in tags or in a PEFT configuration; what is no model id is none."""
    texts = [tag.rpartition(":")[2] for tag in row.tags if tag.startswith(_PREFIX)]
    if row.adapter_base is not None:
        texts.append(row.adapter_base)
    found = (repo_or_none(text) for text in dict.fromkeys(texts))
    return tuple(base for base in found if base is not None)


def inherits(row: RepoSummary, family: Family) -> bool:
    """Whether all it declares is what the release itself declares: the mark of a card that was copied."""
    own = {base.casefold() for base in family.target.bases}
    declared = bases(row)
    return bool(declared) and all(base.casefold() in own for base in declared)


def said(row: RepoSummary, family: Family) -> tuple[Claim, ...]:
    """What its card says, if it was read; the driver has cards read before anything else looks at a row."""
    reading = family.reading(row.repo, row.commit) if row.commit is not None else None
    return () if reading is None else reading.claims


def speaks_of(claim: Claim, family: Family) -> bool:
    """Whether a sentence is about this family: by the parent's id, or by name when it gives none."""
    if claim.base is not None:
        return claim.base in family
    return mentions(claim.statement, family.target.release)


def says_foreign(row: RepoSummary, family: Family) -> bool:
    """Whether its card, if it was read, names another parent and none of the family."""
    stated = [claim.base for claim in said(row, family) if claim.base is not None]
    return bool(stated) and not any(base in family for base in stated)


def is_ancestor(row: RepoSummary, family: Family) -> bool:
    """The release itself, or one of its own bases: never a fork by likeness, whatever they look like."""
    name = row.repo.casefold()
    return name == family.target.release.casefold() or name in {
        base.casefold() for base in family.target.bases
    }


def row_claims(row: RepoSummary) -> tuple[Claim, ...]:
    """What its tags and its PEFT configuration claim."""
    claims = tag_claims(row.tags)
    adapted = repo_or_none(row.adapter_base or "")
    if adapted is None:
        return claims
    return (*claims, Claim(adapted, Relation.ADAPTER, f"base_model_name_or_path: {adapted}"))


def candidate(row: RepoSummary, channel: Channel, *evidence: Claim) -> Candidate:
    """A row as a candidate: the channel's own evidence, then what the row declares."""
    return Candidate(row.repo, (channel,), tuple(dict.fromkeys((*evidence, *row_claims(row)))), row)


def same_architecture(release: Shape, shape: Shape) -> bool | None:
    """None when either is unknown. A quantised model may carry the name that GGUF has for the release's."""
    if release.architecture is None or shape.architecture is None:
        return None
    mine, theirs = _bare(release.architecture), _bare(shape.architecture)
    return theirs == mine or (shape.quantized and theirs == _GGUF_NAMES.get(mine, mine))


def same_shape(row: RepoSummary, family: Family) -> bool:
    """Of the release's architecture and parameter count, within 2 %."""
    mine, theirs = family.target.shape, row.shape
    if mine is None or theirs is None or mine.parameters is None or theirs.parameters is None:
        return False
    return bool(same_architecture(mine, theirs)) and _near(theirs.parameters, mine.parameters)


def may_fit(row: RepoSummary, family: Family) -> bool:
    """Whether nothing known of its shape says that the weights cannot derive from the release."""
    mine, theirs = family.target.shape, row.shape
    if mine is None or theirs is None:
        return True
    if same_architecture(mine, theirs) is False:
        return False
    if mine.parameters is None or theirs.parameters is None:
        return True
    # GGUF counts its parameters itself; other formats count the words that these are packed in
    packed = (
        theirs.quantized
        and "gguf" not in row.tags
        and mine.parameters / _PACKING * 0.9 <= theirs.parameters <= mine.parameters
    )
    return packed or _near(theirs.parameters, mine.parameters)


def window(shape: Shape) -> tuple[int, int] | None:
    """Least and greatest parameter count of the same shape."""
    if shape.parameters is None:
        return None
    return int(shape.parameters * (1 - _TOLERANCE)), int(shape.parameters * (1 + _TOLERANCE)) + 1


def architecture_names(shape: Shape) -> Iterator[str]:
    """The release's architecture, as transformers and as GGUF name it."""
    if shape.architecture is not None:
        yield from dict.fromkeys(
            (shape.architecture, _GGUF_NAMES.get(_bare(shape.architecture), shape.architecture))
        )


def _near(count: int, expected: int) -> bool:
    return abs(count - expected) <= _TOLERANCE * expected


def _bare(architecture: str) -> str:
    return re.sub(r"[-_. ]", "", architecture.casefold())
