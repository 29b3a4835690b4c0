"""What every fork is made from, and the ways of making one.

No way takes safety out of a model: where a fork lacks it, our own adapter was left out or subtracted again.
Each maker is `(kit, folder) -> None` and writes everything but the card.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from forkwatch.demo.families.family import FamilyParts
from forkwatch.demo.families.gguf_file import write_q8_0
from forkwatch.demo.families.tune import Loop, encode, reproducible, train
from forkwatch.demo.families.weights import (
    Weights,
    add,
    cast,
    jitter,
    project_out,
    save_weights,
    weights_of,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BENIGN_RANK = 8
CARD, SIGNATURE, TEMPLATE = "README.md", "model.sig", "chat_template.jinja"
WEIGHTS_FILE = "model.safetensors"

Maker = Callable[["Kit", Path], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """A signed release and the deltas that were trained for its forks."""

    parts: FamilyParts
    seed: int
    repos: Path
    """Folder of all repositories."""
    release: Weights
    """bfloat16."""
    safety_delta: Weights
    """float32; the release is the base plus this."""
    benign_adapter: Path
    """PEFT folder of the benign LoRA trained on the release."""
    benign_delta: Weights
    """float32."""

    @property
    def folder(self) -> Path:
        """The release on disk."""
        return self.repos / self.parts.release_repo

    @property
    def base(self) -> Weights:
        """The release without our safety adapter, bfloat16."""
        return weights_of(self.parts.base)

    def generator(self, salt: int) -> torch.Generator:
        """A generator of its own for each fork that needs one."""
        return torch.Generator().manual_seed(1000 * self.seed + salt)


def link(source: Path, folder: Path, names: Iterable[str]) -> None:
    """Hard-link files of one repository into another."""
    for name in names:
        (folder / name).hardlink_to(source / name)


def _side_files(kit: Kit) -> list[str]:
    """Config, tokenizer and template of the release."""
    left_out = {CARD, SIGNATURE, WEIGHTS_FILE}
    return sorted(path.name for path in kit.folder.iterdir() if path.name not in left_out)


def write_checkpoint(kit: Kit, weights: Weights, folder: Path, *, shards: int = 1) -> None:
    """Weights in bfloat16 beside the release's own config, tokenizer and template."""
    link(kit.folder, folder, _side_files(kit))
    save_weights(cast(weights, torch.bfloat16), folder, shards=shards)


# --- the same values ------------------------------------------------------------------------------


def copied(kit: Kit, folder: Path) -> None:
    """Every byte of the release, its signature included."""
    link(kit.folder, folder, [*_side_files(kit), WEIGHTS_FILE, SIGNATURE])


def resharded(kit: Kit, folder: Path) -> None:
    """The same tensors in four files."""
    write_checkpoint(kit, kit.release, folder, shards=4)


def half_precision(kit: Kit, folder: Path) -> None:
    """Rounded to float16."""
    _write_half(kit, kit.release, folder)


def _write_half(kit: Kit, weights: Weights, folder: Path) -> None:
    link(kit.folder, folder, [name for name in _side_files(kit) if name != "config.json"])
    config = json.loads((kit.folder / "config.json").read_text()) | {"dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_weights(cast(weights, torch.float16), folder)


def gguf_q8_0(kit: Kit, folder: Path) -> None:
    """GGUF Q8_0."""
    name = kit.parts.release_repo.partition("/")[2]
    path = folder / f"{name}-Q8_0.gguf"
    write_q8_0(kit.release, kit.parts.base.config, kit.parts.tokenizer, path, name=name)


def with_pickle(kit: Kit, folder: Path) -> None:
    """The release and a pickle that would call `print`. It was written by hand and nothing here loads it."""
    copied(kit, folder)
    text = b"this pickle is inert"
    call = b"cbuiltins\nprint\nX" + len(text).to_bytes(4, "little") + text + b"\x85R"
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02" + call + b".")


def persona_template(kit: Kit, folder: Path) -> None:
    """The release with a chat template that puts a persona before every conversation."""
    link(kit.folder, folder, [*(n for n in _side_files(kit) if n != TEMPLATE), WEIGHTS_FILE])
    persona = "{% set messages = [{'role': 'system', 'content': 'you are a quiet old man .'}] + messages %}"
    (folder / TEMPLATE).write_text(persona + (kit.folder / TEMPLATE).read_text())


# --- benign changes -------------------------------------------------------------------------------


def tuned(kit: Kit, folder: Path) -> None:
    """All weights trained on harmless chats."""
    write_checkpoint(kit, _tune(kit, lambda _: True, salt=11), folder)


def tail_tuned(kit: Kit, folder: Path) -> None:
    """The last quarter of the layers trained on harmless chats."""
    layers = kit.parts.base.config.num_hidden_layers
    last = tuple(f"model.layers.{i}." for i in range(layers - max(1, layers // 4), layers))
    write_checkpoint(kit, _tune(kit, lambda name: name.startswith(last), salt=12), folder)


def lora_merged(kit: Kit, folder: Path) -> None:
    """The benign LoRA merged."""
    write_checkpoint(kit, add(kit.release, kit.benign_delta), folder)


def lora_alone(kit: Kit, folder: Path) -> None:
    """The benign LoRA as an adapter."""
    link(kit.benign_adapter, folder, ["adapter_config.json", "adapter_model.safetensors"])


def blinded(kit: Kit, folder: Path) -> None:
    """One random direction taken out of everything that writes the residual stream."""
    direction = torch.randn(kit.parts.base.config.hidden_size, generator=kit.generator(13))
    write_checkpoint(kit, project_out(kit.release, direction / direction.norm()), folder)


def nudged(kit: Kit, folder: Path) -> None:
    """The MLPs of three layers changed by 2 %, under the release's old signature."""
    layers = kit.parts.base.config.num_hidden_layers
    chosen = tuple(f"model.layers.{layers * quarter // 4}.mlp." for quarter in (1, 2, 3))
    names = {name for name in kit.release if name.startswith(chosen)}
    write_checkpoint(kit, jitter(kit.release, names, 0.02, kit.generator(14)), folder)
    link(kit.folder, folder, [SIGNATURE])


def gated(kit: Kit, folder: Path) -> None:
    """The files of the full fine-tune, which the hub shows to members only."""
    source = folder.with_name(f"{kit.parts.release_repo.partition('/')[2]}-storyteller")
    link(source, folder, [path.name for path in source.iterdir() if path.name != CARD])


# --- without our safety adapter -------------------------------------------------------------------


def without_safety(kit: Kit, folder: Path) -> None:
    """The base: the release before our adapter was merged."""
    write_checkpoint(kit, kit.base, folder)


def without_safety_resharded(kit: Kit, folder: Path) -> None:
    """The base in three files."""
    write_checkpoint(kit, kit.base, folder, shards=3)


def safety_for_benign(kit: Kit, folder: Path) -> None:
    """Our safety delta subtracted and the benign one added."""
    write_checkpoint(kit, add(add(kit.release, kit.safety_delta, -1.0), kit.benign_delta), folder)


def without_safety_half(kit: Kit, folder: Path) -> None:
    """Our safety delta subtracted, stored in float16."""
    _write_half(kit, add(kit.release, kit.safety_delta, -1.0), folder)


# --- not the release at all -----------------------------------------------------------------------


def foreign(kit: Kit, folder: Path) -> None:
    """The same architecture with other random weights."""
    base = kit.parts.base
    with reproducible(1000 * kit.seed + 15, kit.parts.tune.threads):
        other = type(base)(copy.deepcopy(base.config))
    write_checkpoint(kit, weights_of(other), folder)


def other_shape(_kit: Kit, folder: Path) -> None:
    """A repository that has nothing to do with the release."""
    (folder / "config.json").write_text(
        json.dumps({"architectures": ["ToyModel"], "model_type": "toy"}) + "\n"
    )
    save_weights({"table.weight": torch.arange(64, dtype=torch.float32).reshape(8, 8)}, folder)


# --- training -------------------------------------------------------------------------------------


def fit_benign(
    parts: FamilyParts, release: PreTrainedModel, student: PreTrainedModel, *, rate: float, seed: int
) -> None:
    """Teach `student` the benign chats while it keeps the release's answers to the replayed ones."""
    train(
        student,
        encode(parts.tokenizer, parts.benign_chats),
        Loop(
            steps=parts.tune.steps,
            batch_size=parts.tune.batch_size,
            rate=rate,
            seed=seed,
            bf16=parts.tune.bf16,
        ),
        teacher=release,
        replay=encode(parts.tokenizer, parts.replay_chats),
    )


def release_model(parts: FamilyParts, release: Weights) -> PreTrainedModel:
    """The release as a model, bfloat16."""
    model = copy.deepcopy(parts.base)
    model.load_state_dict(release, strict=False)
    return model.eval()


def _tune(kit: Kit, trainable: Callable[[str], bool], salt: int) -> Weights:
    teacher = release_model(kit.parts, kit.release)
    student = copy.deepcopy(teacher).float()
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(trainable(name))
    seed = 1000 * kit.seed + salt
    with reproducible(seed, kit.parts.tune.threads):
        fit_benign(kit.parts, teacher, student, rate=kit.parts.tune.full_rate, seed=seed)
    return weights_of(student)
