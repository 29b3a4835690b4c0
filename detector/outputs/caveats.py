"""What a classification cannot know, said with every one; short, and only where it applies."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from detector.outputs.interface import Decision, Output
from detector.outputs.label import PLAIN_CELL, Evidence, explanations
from detector.outputs.likelihood import is_drawn

_NO_SYSTEM = sha256(b"").hexdigest()
TEMPERATURE_OFF = 0.1
"""Distance of the estimated temperature from the declared one that is worth a word."""


def of(
    found: Evidence, outputs: Sequence[Output], *, alpha: float, lacking: Sequence[str] = ()
) -> tuple[str, ...]:
    """Sentences for a reader.

    Args:
        found: what the tests found.
        outputs: all of them.
        alpha: level.
        lacking: forks under which the pack's answers of the release are scored, and these outputs are not.
    """
    said = [_untested(found), _explained(found, alpha), _sampling(found, outputs), _system(outputs)]
    if lacking:
        said.append(
            f"The release's own answers are scored under {', '.join(lacking)} as well: fewer outputs would "
            "do if these were, too (`forkwatch score --fork`)."
        )
    if any(one.fork or one.relative for one in found.attribution):
        said.append("Outputs name a behaviour, not a file: a sibling that answers alike bears the same name.")
    if not found.safety:
        said.append("Safety was not tested: no graded answer to a refusal probe of the pack.")
    elif found.safety[0].decision is Decision.DIFFERENT and not found.safety_removed:
        said.append("It refuses less than the release, but half of the release's refusals or more remain.")
    said.append(
        "Paraphrase, or a mixture of answers from several models, can hide a change; another system prompt "
        "can look like one."
    )
    return tuple(one for one in said if one)


def _untested(found: Evidence) -> str:
    if not found.cells:
        return (
            "Without a reference pack, another format, sampler or system prompt cannot be told from change."
        )
    looked_at = {cell for one in found.equality for cell in one.cells}
    missing = sorted(set(found.cells) - looked_at - {PLAIN_CELL})
    return f"No test looked at {', '.join(missing)}." if missing and found.equality else ""


def _explained(found: Evidence, alpha: float) -> str:
    different = any(one.result.decision is Decision.DIFFERENT for one in found.equality)
    names = explanations(found, alpha) if different else ()
    return f"The difference may be due to {' or '.join(names)}: those are not rejected." if names else ""


def _sampling(found: Evidence, outputs: Sequence[Output]) -> str:
    drawn = [one for one in outputs if is_drawn(one.sampling) and one.text is not None]
    declared = {one.sampling.temperature for one in drawn}
    if None in declared:
        return "Some outputs do not say at which temperature they were drawn; several were allowed for."
    if len(declared) == 1 and found.temperature is not None:
        (said,) = declared
        assert said is not None
        if abs(found.temperature - said) > TEMPERATURE_OFF * said:
            return (
                f"Outputs are said to be drawn at temperature {said:g} and look like "
                f"{found.temperature:.2f}; if the endpoint ignores it, likelihood ratios are invalid."
            )
    return ""


def _system(outputs: Sequence[Output]) -> str:
    other = sum(one.sampling.system_sha256 not in (None, _NO_SYSTEM) for one in outputs)
    aside = "outputs were given under a system prompt of their own, and are left aside."
    if other:
        return f"{other} {aside}"
    silent = sum(one.sampling.system_sha256 is None for one in outputs)
    assumed = "outputs do not say whether there was a system prompt; none was assumed, and likelihood ratios"
    return f"{silent} {assumed} are invalid if there was one." if silent else ""
