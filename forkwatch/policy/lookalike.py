"""Repository ids made to be taken for a guarded release's.

The Hub's ids are ASCII, so the tricks are few: letters that look alike (l, I, 1; O, 0; rn, m), a separator
more or less, a doubled or missing letter, and "official" behind somebody else's name. A model's own name is
public property: mirrors, conversions and fine-tunes carry it, and versions differ by one character, so of it
only look-alike letters count. The organisation's name is not, and is held to more.

Not covered: names that resemble a release by meaning (`open-oss` for `openai`), and other releases than the
one that a repository is compared with.
"""

from __future__ import annotations

import re

_CONFUSED = str.maketrans({"i": "l", "1": "l", "0": "o", "5": "s", "|": "l"})
_SEPARATORS = re.compile(r"[-_.]+")
_DOUBLED = re.compile(r"(.)\1+")
_OFFICIAL = frozenset({"official", "real", "verified", "team", "hq", "inc"})
"""What impersonators add to a name, and fans and communities do not."""
_SHORT = 4
"""Letters; of shorter names many differ by one."""
_UNLIKELY = 8
"""Letters from which on few names differ in one by chance; `OpenBI` is no imitation of `openai`."""


def imitation(repo: str, release: str) -> str:
    """How the id imitates the release's, in a phrase, or an empty string.

    Args:
        repo: `namespace/name` of a repository.
        release: `namespace/name` of the release that it is compared with.
    """
    owner, _, name = repo.partition("/")
    publisher, _, model = release.partition("/")
    if owner.lower() == publisher.lower():
        return ""
    if reason := _imitated_owner(owner.lower(), publisher.lower(), same_model=_begins_alike(name, model)):
        return f"the namespace {owner} {reason} {publisher}"
    plain, guarded = (_SEPARATORS.sub("-", text.lower()) for text in (name, model))
    if plain != guarded and _letters(plain) == _letters(guarded):
        return f"the name {name} has other letters that look like those of {model}"
    return ""


def _imitated_owner(owner: str, publisher: str, *, same_model: bool) -> str:
    """Among owners: how one imitates another."""
    plain, guarded = _SEPARATORS.sub("", owner), _SEPARATORS.sub("", publisher)
    long = len(guarded) > _SHORT
    if plain == guarded and (long or same_model):
        return "differs in separators only from"
    if _letters(plain) == _letters(guarded) and (long or same_model):
        return "has other letters that look like those of"
    if not same_model:
        return ""
    parts = [part for part in _SEPARATORS.split(owner) if part]
    rest = [part for part in parts if part not in _OFFICIAL]
    if len(rest) < len(parts) and "".join(rest) == guarded:
        return "adds a word of authority to"
    doubled = long and _DOUBLED.sub(r"\1", plain) == _DOUBLED.sub(r"\1", guarded)
    replaced = len(guarded) >= _UNLIKELY and _one_apart(plain, guarded)
    near = doubled or replaced or (long and _swapped(plain, guarded))
    return "is one letter away from" if near else ""


def _letters(text: str) -> str:
    """Equal for two texts that look alike."""
    return text.translate(_CONFUSED).replace("rn", "m").replace("vv", "w")


def _begins_alike(name: str, model: str) -> bool:
    """Whether a repository carries the model's own name, whatever follows."""
    return _letters(_SEPARATORS.sub("", name.lower())).startswith(
        _letters(_SEPARATORS.sub("", model.lower()))
    )


def _swapped(first: str, second: str) -> bool:
    """Two neighbours swapped; the first letter stays."""
    differ = [at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b]
    return (
        len(first) == len(second)
        and len(differ) == 2
        and 0 < differ[0] == differ[1] - 1
        and first[differ[0]] == second[differ[1]]
        and first[differ[1]] == second[differ[0]]
    )


def _one_apart(first: str, second: str) -> bool:
    """One letter inserted, dropped or replaced; the first letter stays."""
    if abs(len(first) - len(second)) > 1 or first[:1] != second[:1]:
        return False
    head = next((at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(first))
    a, b = first[head:], second[head:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:]
