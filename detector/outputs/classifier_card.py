"""The card of a classifier: what it is for, how good it is, how it is fooled. Markdown; quotes no output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from detector.outputs.classifier import Classifier, Mode
from detector.outputs.conformal import SIZES, units_needed
from detector.outputs.evaluation import Evaluation, ForkRow, Rate, Split, rate

NOT_STATED = "not stated"

MODES: Mapping[Mode, str] = {
    Mode.SCORE: "prompts, outputs and the authentic model's scores of them",
    Mode.TEXT: "prompts and outputs alone (degraded mode)",
}
SPLITS: Mapping[Split, str] = {
    Split.PROMPTS: "forks that were seen, other prompts",
    Split.FORK: "leave one fork out",
    Split.FAMILY: "leave one family out",
    Split.TIME: "trained on earlier forks, tested on later ones",
}

_USE = """\
Triage and monitoring of outputs that claim to come from this release. A person decides; a result is a reason
to look, with a p-value. It is **no proof of identity**: it says whether outputs are as unlike the release's
own as one in a hundred of those are, and never that they *are* the release's.

It says nothing about safety. A modified model may refuse as before, and one that refuses less may not be seen
here; that is a question of its own, answered with refusal probes."""

_EVASIONS = """\
- **Paraphrase** of the outputs by another model removes what texts and scores show.
- **Mixing**: when only a share of the outputs is modified, the share is what counts; a tenth needs about a
  hundred times as many outputs.
- **Temperature, top-p and system prompts** outside the grid below: false alarms were measured on the grid.
  Lower temperatures hide a modification, as they make outputs look more authentic.
- **Training against the probes**: a fork's author who knows the prompts can imitate the release on them. Part
  of the probe set is private and changes for that reason.
- **Unseen families**: read the row *leave one family out*, not the first. Texts alone hardly carry over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """What a card says beside the numbers."""

    config_digest: str
    """Of `config.json`, which names the digest of the numbers."""
    expires: str
    """ISO 8601 date after which it should be trained again."""
    probe_license: str = NOT_STATED


def family_rates(evaluation: Evaluation, mode: Mode, split: Split) -> dict[str, tuple[Rate, ...]]:
    """Rates of each edit family, over the units of all its forks."""
    families: dict[str, list[ForkRow]] = {}
    for row in evaluation.forks:
        if row.mode is mode and row.split is split:
            families.setdefault(row.family, []).append(row)
    return {
        family: tuple(_sum([row.rates[place] for row in rows]) for place in range(len(SIZES)))
        for family, rows in sorted(families.items())
    }


def _sum(rates: Sequence[Rate]) -> Rate:
    measured = [one for one in rates if not one.unmeasured]
    if not measured:
        return rates[0]
    return rate(measured[0].n, sum(one.hits for one in measured), sum(one.units for one in measured))


def write_card(classifier: Classifier, evaluation: Evaluation, facts: CardFacts) -> str:
    """The card as Markdown."""
    return "\n".join(_lines(classifier, evaluation, facts)) + "\n"


def _lines(classifier: Classifier, evaluation: Evaluation, facts: CardFacts) -> Iterator[str]:
    yield f"# Output classifier of {_text(classifier.release)}"
    yield from ("", "## Intended use", "", _USE, "", "## What it is", "")
    yield from _table(("", ""), _identity(classifier, facts))
    for mode in classifier.calibrations:
        yield from _measured(classifier, evaluation, mode)
    yield from ("", "## How it is fooled", "", _EVASIONS, "", "## Trained on", "")
    yield from _table(
        ("Model", "Family", "Counts as", "Outputs"),
        [
            (_text(one.model), _text(one.family), "authentic" if one.benign else "modified", str(one.outputs))
            for one in classifier.known
        ],
    )
    for sentence in classifier.left_out:
        yield from ("", f"Left out: {_text(sentence)}.")


def _measured(classifier: Classifier, evaluation: Evaluation, mode: Mode) -> Iterator[str]:
    """What is known of one mode."""
    alpha = evaluation.alpha
    yield from ("", f"## With {MODES[mode]}", "")
    yield f"Share of units of n outputs found at {alpha:.0%} false alarms (Clopper-Pearson interval, 95 %)."
    yield ""
    yield from _powers(evaluation, mode)
    yield from ("", "False alarms by nuisance cell, on outputs that gave no threshold:", "")
    cells = [row for row in evaluation.cells if row.mode is mode]
    yield from _table(("Cell", *_sizes()), [(_text(row.cell), *map(_rate, row.rates)) for row in cells])
    units, cell = classifier.calibrations[mode].units(1)
    yield ""
    yield f"The smallest cell ({_text(cell)}) was calibrated on {units} outputs: there is a threshold for up"
    yield f"to {units // units_needed(alpha)} at once. Of more only so many are used; at 0 the answer is"
    yield "*insufficient evidence*."


def _identity(classifier: Classifier, facts: CardFacts) -> list[tuple[str, str]]:
    made = classifier.provenance
    libraries = ", ".join(f"{name} {version}" for name, version in made.libraries)
    return [
        ("Release", _text(classifier.release)),
        ("Root digest", _code(classifier.root_digest)),
        ("Tokenizer", _code(made.tokenizer)),
        ("Chat template", _code(made.template)),
        ("Probe set", f"{_code(classifier.probe_set)}, licence {_text(facts.probe_license)}"),
        ("Prompts", str(len(classifier.prompts))),
        ("Sampling", _text(made.sampling or NOT_STATED)),
        ("Reference pack", _code(made.pack)),
        ("Classifier", _code(facts.config_digest)),
        (
            "Made",
            f"{_text(made.made_at or NOT_STATED)} by forkwatch {_text(made.program)}, {_text(libraries)}",
        ),
        ("Expires", _text(facts.expires)),
    ]


def _powers(evaluation: Evaluation, mode: Mode) -> Iterator[str]:
    rows = []
    for split, title in SPLITS.items():
        for family, rates in family_rates(evaluation, mode, split).items():
            own = [
                row for row in evaluation.forks if (row.mode, row.split, row.family) == (mode, split, family)
            ]
            mean = sum(row.auroc for row in own) / len(own)
            rows.append((title, _text(family), str(len(own)), f"{mean:.2f}", *map(_rate, rates)))
    yield from _table(("Split", "Family", "Forks", "AUROC, n = 1", *_sizes()), rows)


def _sizes() -> tuple[str, ...]:
    return tuple(f"n = {n}" for n in SIZES)


def _rate(found: Rate) -> str:
    if found.unmeasured:
        return "not measured"
    return f"{found.hits / found.units:.2f} ({found.low:.2f}–{found.high:.2f}; {found.units})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _code(text: str) -> str:
    return f"`{_text(text)}`" if text else NOT_STATED


def _text(text: str) -> str:
    """Names come from the Hub: nothing in them is markup, or breaks a line."""
    printable = "".join(mark if mark.isprintable() else " " for mark in text)
    return "".join(f"\\{mark}" if mark in "\\`*[]<>|#!" else mark for mark in printable)
