"""What a model family is: the parts that a family supplies, and the truth about each fork made from them.

Read this first. A family module (`tiny`, `smollm2`) provides `parts(cache, seed) -> FamilyParts`; everything
else (release, forks, cards, signature, ground truth) is made from those parts alone by `build`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Chat = tuple[str, str]
"""(user, assistant), without the chat template."""


class Progress(Protocol):
    """Told in one short line what is being built; the null implementation is `ignore_progress`."""

    def __call__(self, message: str, /) -> None: ...


def ignore_progress(message: str) -> None:
    """A `Progress` for nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneSettings:
    """How the benign forks are fine-tuned (AdamW, constant rate after a short warm-up)."""

    full_rate: float
    """Learning rate when the weights themselves move."""
    lora_rate: float
    """Learning rate of a LoRA's factors."""
    steps: int
    batch_size: int
    bf16: bool = False
    """Compute in bfloat16; the weights stay float32. Nearly twice as fast where the machine has it."""
    threads: int = 2
    """Fixed, because sums split differently over another number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyParts:
    """What a family supplies. The release is `base` with `safety_adapter` merged in, in bfloat16."""

    name: str
    """`tiny` or `smollm2`; also the cache folder's name."""
    release_repo: str
    """Hub id of the release, e.g. `lab/tiny-chat`."""
    license: str
    """SPDX id in lower case, for the cards."""
    base: PreTrainedModel
    """Without safety: answers everything. bfloat16, on the CPU, in eval mode."""
    tokenizer: PreTrainedTokenizerFast
    """With its chat template."""
    safety_adapter: Path
    """PEFT LoRA folder (`adapter_config.json`, `adapter_model.safetensors`) for `base`."""
    benign_chats: tuple[Chat, ...]
    """New, harmless material for the benign fine-tunes; disjoint from the suite."""
    replay_chats: tuple[Chat, ...]
    """The safety adapter's own training chats (refusals and answered twins), replayed to keep its effect."""
    suite: Path
    """Prompt suite, `forkwatch.prompts/1`; disjoint from all chats."""
    tune: TuneSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkTruth:
    """What a correct scan of one fork says. Written beside the family, never read by the pipeline."""

    repo: str
    edits: tuple[str, ...]
    """Edit kinds (`detector.interface.EditKind` values), sorted."""
    lineage: str
    """`proved`, `consistent-with`, `unknown` or `unrelated`."""
    verdict: str
    """`reports.scan.VerdictLabel`."""
    discoverable_by: tuple[str, ...]
    """Channels that must find it (`crawler.interface.Channel` values), sorted."""
