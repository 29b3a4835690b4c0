"""The null of the lineage tests on *trained* models: same text, same order, same shape, another seed.

    python -m benchmarks.lineage_null [MODELS] [STEPS] [WIDTH]

Prints, over all pairs, how often a p-value fell under a bound, against what chance allows. Trains small
Llama-shaped models on this repository's own documentation, byte by byte.
"""

from __future__ import annotations

import math
import sys
import tempfile
from itertools import combinations
from pathlib import Path

import torch

from crawler.local import LocalFile
from detector.formats import open_weights
from detector.index.fingerprint import Fingerprint, Identity, ModelKind, take_fingerprint
from detector.index.search import relate
from detector.index.signature import gain_ranks
from detector.neurons import count_matches

ROOT = Path(__file__).parent.parent
BOUNDS = (0.05, 0.01, 1e-3, 1e-6)
BATCH, CONTEXT = 16, 64


def text() -> torch.Tensor:
    """The documentation as bytes."""
    content = b"".join(path.read_bytes() for path in sorted((ROOT / "docs").rglob("*.md")))
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).long()


def train(seed: int, steps: int, width: int, corpus: torch.Tensor) -> tuple[dict[str, torch.Tensor], float]:
    """A model's weights and its last loss; the data come in the same order for every seed."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=256,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            max_position_embeddings=CONTEXT,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    order = torch.Generator().manual_seed(0)
    loss = torch.zeros(())
    for _ in range(steps):
        starts = torch.randint(0, len(corpus) - CONTEXT, (BATCH,), generator=order)
        batch = torch.stack([corpus[start : start + CONTEXT] for start in starts])
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weights = {name: value.detach().bfloat16().contiguous() for name, value in model.named_parameters()}
    return weights, loss.item()


def fingerprint(weights: dict[str, torch.Tensor], folder: Path, name: str) -> Fingerprint:
    from safetensors.torch import save_file

    path = folder / f"{name}.safetensors"
    save_file(weights, path)
    return take_fingerprint(
        open_weights({path.name: LocalFile(path)}), Identity(name=name, kind=ModelKind.MODEL)
    )


def main() -> None:
    models, steps, width = (
        int(sys.argv[index]) if len(sys.argv) > index else default
        for index, default in ((1, 25), (2, 300), (3, 64))
    )
    corpus = text()
    with tempfile.TemporaryDirectory() as name:
        folder, prints = Path(name), []
        for seed in range(models):
            weights, loss = train(seed, steps, width, corpus)
            prints.append(fingerprint(weights, folder, str(seed)))
        print(f"{models} models of width {width}, {steps} steps, last loss {loss:.2f} (uniform: 5.55)")
    neurons, gains, tokens, related = [], [], [], 0
    for one, other in combinations(prints, 2):
        relation = relate(one, other)
        related += relation.log10_p <= -6
        neurons.append(
            count_matches(
                [(one.bands.layers[layer], other.bands.layers[layer]) for layer in one.bands.layers]
            ).log10_p
        )
        ours, theirs = (gain_ranks(list(side.bands.gains.values())) for side in (one, other))
        if ours is not None and theirs is not None:
            gains.append(float(ours @ theirs))
        if one.bands.embedding is not None and other.bands.embedding is not None:
            tokens.append(count_matches([(one.bands.embedding, other.bands.embedding)]).log10_p)
    print(f"{len(neurons)} pairs of independent models; related by the index: {related}")
    for name, values in (("matched neurons", neurons), ("token rows (not used)", tokens)):
        counts = [sum(value <= math.log10(bound) for value in values) / len(values) for bound in BOUNDS]
        shares = ", ".join(
            f"{share:.3f} under {bound:g}" for share, bound in zip(counts, BOUNDS, strict=True)
        )
        print(f"{name:22} {shares}; smallest 1e{min(values):.1f}")
    deviation = 1 / math.sqrt(width - 1)
    spread = math.sqrt(sum(value**2 for value in gains) / len(gains))
    print(f"gains: correlation rms {spread:.3f} (chance {deviation:.3f}), largest {max(gains):.3f}")


if __name__ == "__main__":
    main()
