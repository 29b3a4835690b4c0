"""A toy language, training on it, and a direction that tells two of its topics apart.

A document is a topic token and then words: usually one of the four words that follow the last one in that
topic, else a word by Zipf's law. A dialect (other seed) has other successors; fine-tuning learns a dialect.
The topics are nothing but tables of successors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

TOPICS = 4
LENGTH = 24
BATCH = 16


@dataclass(frozen=True, slots=True)
class Run:
    """One training run."""

    seed: int
    dialect: int = 0
    steps: int = 60
    rate: float = 1e-3
    decay: float = 0.0
    only: str = ""
    """Parameters whose name holds this are trained; all by default."""
    lora: int = 0
    """Rank of a LoRA on all linear modules; 0 for none."""

    @property
    def key(self) -> str:
        """Name of its cache folder."""
        what = f"{self.only or 'all'}-{self.lora}"
        return f"tune-{self.seed}-{self.dialect}-{self.steps}-{self.rate:g}-{self.decay:g}-{what}"


def documents(count: int, vocab: int, dialect: int, seed: int, topic: int | None = None) -> torch.Tensor:
    """(count, LENGTH) token ids."""
    tables = np.random.default_rng(1000 + dialect).integers(TOPICS, vocab, (TOPICS, vocab, 4))
    rng = np.random.default_rng(seed)
    topics = rng.integers(0, TOPICS, count) if topic is None else np.full(count, topic)
    rows = np.empty((count, LENGTH), np.int64)
    rows[:, 0] = topics
    for position in range(1, LENGTH):
        likely = tables[topics, rows[:, position - 1], rng.integers(0, 4, count)]
        other = np.minimum(TOPICS + rng.zipf(1.3, count), vocab - 1)
        rows[:, position] = np.where(rng.random(count) < 0.8, likely, other)
    return torch.from_numpy(rows)


def train(network: Any, folder: Path, run: Run) -> None:
    """Train the network in float32 and save it as transformers does; a LoRA is saved and then merged."""
    torch.manual_seed(run.seed)
    trained = network
    if run.lora:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=run.lora, lora_alpha=2 * run.lora, target_modules="all-linear")
        trained = get_peft_model(network, config)
    elif run.only:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(run.only in name)
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=run.rate, weight_decay=run.decay)
    trained.train()
    vocab = network.config.vocab_size
    for step in range(run.steps):
        rows = documents(BATCH, vocab, run.dialect, run.seed * 100_003 + step)
        loss = trained(input_ids=rows, labels=rows).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    if run.lora:
        trained.save_pretrained(folder / "adapter")
        trained = trained.merge_and_unload()
    trained.save_pretrained(folder)


def topic_direction(folder: Path, layer: int) -> torch.Tensor:
    """(hidden) unit vector: difference of the mean last hidden states of two topics after a layer."""
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    means = []
    with torch.no_grad():
        for topic in (0, 1):
            rows = documents(64, network.config.vocab_size, 0, 7, topic)
            states = network(input_ids=rows, output_hidden_states=True).hidden_states[layer]
            means.append(states[:, -1].mean(0))
    direction: torch.Tensor = means[0] - means[1]
    return torch.nn.functional.normalize(direction, dim=0)
