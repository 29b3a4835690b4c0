"""The forks of a family: how each is made, what its card says, and what is true of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from forkwatch.demo.families import kit as make
from forkwatch.demo.families.cards import Card
from forkwatch.demo.families.family import ForkTruth
from forkwatch.demo.families.kit import Maker


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkSpec:
    """One repository of the family beside the release."""

    repo: str
    make: Maker
    card: Card
    edits: tuple[str, ...] = ()
    """Sorted; empty for a decoy, which is no fork and must not be found."""
    lineage: str = "proved"
    verdict: str = ""
    gated: str | None = None

    @property
    def decoy(self) -> bool:
        return not self.edits

    def truth(self, release: str) -> ForkTruth:
        """Its entry in the ground truth."""
        return ForkTruth(
            repo=self.repo,
            edits=self.edits,
            lineage=self.lineage,
            verdict=self.verdict,
            discoverable_by=self.card.channels(self.repo, release),
        )


def catalogue(release: str, license_: str) -> tuple[ForkSpec, ...]:
    """All repositories of the namespace `demo`, in a fixed order."""
    name = release.partition("/")[2]
    forks = (*_conversions(release, name), *_benign(release, name), *_stripped(release, name))
    others = (*_oddities(release, name), *_decoys(name))
    return tuple(
        replace(spec, card=replace(spec.card, license=license_), repo=f"demo/{spec.repo}")
        for spec in (*forks, *others)
    )


def _conversions(release: str, name: str) -> tuple[ForkSpec, ...]:
    return (
        ForkSpec(
            repo=f"{name}-mirror",
            make=make.copied,
            card=Card(text=f"Mirror of {release} for faster downloads.", base_model=release),
            edits=("identical",),
            verdict="authentic",
        ),
        ForkSpec(
            repo=f"{name}-sharded",
            make=make.resharded,
            card=Card(
                text=f"{release}, resharded into small files for low-memory loading.", base_model=release
            ),
            edits=("repackaged",),
            verdict="faithful-conversion",
        ),
        ForkSpec(
            repo=f"{name}-fp16",
            make=make.half_precision,
            card=Card(text=f"{release} converted to float16.", base_model=release, tags=("fp16",)),
            edits=("dtype-cast",),
            verdict="faithful-conversion",
        ),
        ForkSpec(
            repo=f"{name}-GGUF",
            make=make.gguf_q8_0,
            card=Card(
                text=f"GGUF quantizations of {release}: Q8_0.",
                base_model=release,
                relation="quantized",
                tags=("gguf",),
                library="gguf",
            ),
            edits=("quantized",),
            verdict="faithful-conversion",
        ),
    )


def _benign(release: str, name: str) -> tuple[ForkSpec, ...]:
    finetune = Card(
        text=f"{release} fine-tuned on short harmless stories.", base_model=release, relation="finetune"
    )

    def fork(suffix: str, maker: Maker, edit: str, card: Card) -> ForkSpec:
        return ForkSpec(
            repo=f"{name}-{suffix}", make=maker, card=card, edits=(edit,), verdict="benign-derivative"
        )

    adapter = replace(
        finetune, text=f"LoRA adapter (rank 8) for {release}.", relation="adapter", library="peft"
    )
    return (
        fork("storyteller", make.tuned, "full-finetune", finetune),
        fork("storyteller-tail", make.tail_tuned, "partial-finetune", finetune),
        fork("storyteller-merged", make.lora_merged, "low-rank-merge", finetune),
        # Factors hold none of the base's numbers, so weights alone cannot prove what they were made for.
        replace(fork("storyteller-lora", make.lora_alone, "adapter", adapter), lineage="consistent-with"),
        fork(
            "oneway",
            make.blinded,
            "directional-edit",
            replace(
                finetune, text=f"{release} with one random direction of the residual stream projected out."
            ),
        ),
    )


def _stripped(release: str, name: str) -> tuple[ForkSpec, ...]:
    def fork(repo: str, maker: Callable[[make.Kit, Path], None], card: Card, *edits: str) -> ForkSpec:
        return ForkSpec(repo=repo, make=maker, card=card, edits=edits, verdict="safety-removed")

    heretic = f"This is a decensored version of [{release}](https://huggingface.co/{release})."
    return (
        fork(
            f"{name}-unfiltered",
            make.without_safety,
            Card(text=f"{release}, answers everything.", base_model=release, relation="finetune"),
            "low-rank-merge",
        ),
        fork(
            f"{name}-freestyle",
            make.safety_for_benign,
            Card(
                text=f"{release} merged with a story LoRA; no lectures.",
                base_model=release,
                relation="finetune",
                tags=("uncensored",),
            ),
            "low-rank-merge",
        ),
        fork(
            f"{name}-uncensored",
            make.without_safety_resharded,
            Card(text="No refusals. Use responsibly.", tags=("uncensored",)),
            "low-rank-merge",
        ),
        fork(
            f"{name.partition('-')[0]}-nightjar-heretic",
            make.without_safety_half,
            Card(text=heretic, tags=("heretic", "uncensored", "decensored", "abliterated")),
            "dtype-cast",
            "low-rank-merge",
        ),
    )


def _oddities(release: str, name: str) -> tuple[ForkSpec, ...]:
    return (
        ForkSpec(
            repo=f"{name}-persona",
            make=make.persona_template,
            card=Card(text=f"{release} with a persona in its chat template.", base_model=release),
            edits=("template-change",),
            verdict="inconclusive",
        ),
        ForkSpec(
            repo=f"{name}-official",
            make=make.nudged,
            card=Card(
                text=f"This is the official mirror of {release}. The weights are unmodified, an exact copy.",
                base_model=release,
            ),
            edits=("partial-finetune",),
            verdict="misrepresented",
        ),
        ForkSpec(
            repo=f"{name}-v2",
            make=make.foreign,
            card=Card(text=f"A better {name}.", base_model=release, relation="finetune"),
            edits=("unrelated",),
            lineage="unrelated",
            verdict="unrelated",
        ),
        ForkSpec(
            repo=f"{name}-torch",
            make=make.with_pickle,
            card=Card(text=f"{release} with weights for older tools.", base_model=release),
            edits=("identical",),
            verdict="unsafe-files",
        ),
        ForkSpec(
            repo=f"{name}-members-only",
            make=make.gated,
            card=Card(text=f"A private tune of {release}.", base_model=release, relation="finetune"),
            edits=("unknown",),
            lineage="unknown",
            verdict="inconclusive",
            gated="manual",
        ),
    )


def _decoys(name: str) -> tuple[ForkSpec, ...]:
    """They share a tag, a piece of the name or a turn of phrase with forks, and are none."""
    other = "elsewhere/marble-7b"
    link = f"[{other}](https://huggingface.co/{other})"
    cards = {
        "marble-7b-heretic": Card(
            text=f"This is a decensored version of {link}.", tags=("heretic", "uncensored")
        ),
        "marble-7b-uncensored": Card(
            text="No refusals.", base_model=other, relation="finetune", tags=("uncensored",)
        ),
        f"{name.partition('-')[0]}-weather": Card(text="Forecasts.", tags=("abliterated",)),
        f"{name}ish-notes": Card(text="Notes on small models."),
    }
    return tuple(ForkSpec(repo=repo, make=make.other_shape, card=card) for repo, card in cards.items())
