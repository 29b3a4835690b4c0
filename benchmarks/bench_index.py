"""The index at scale: build, size, seconds, recall of perturbed copies, false relatives; synthetic models.

    python -m benchmarks.bench_index [MODELS] [CANDIDATES] [SEED]

Each model has 32 layers of 8 neurons of width 128 (Gaussian over a power-law low-rank part that the layers of
a model share, and column scales that *all* models share, as an architecture and a tokenizer make them), and
norm gains with a profile of their own. Real widths are larger: signatures stay as they are, chance shrinks.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from detector.index.fingerprint import Fingerprint, Identity, ModelKind, Shape
from detector.index.search import search_index
from detector.index.signature import Floats, layer_signatures
from detector.index.storage import load_fingerprint, save_fingerprint
from detector.index.table import FILE, SignatureTable, open_table
from detector.lineage import Bands

LAYERS, ROWS, WIDTH = 32, 8, 128
BRUTE = 500
"""Models that brute force reads; its time is scaled to all of them."""
Model = tuple[Floats, Floats]
"""Neurons (layers, rows, width) and gains (8, width)."""

_COMMON = np.exp(0.8 * np.random.Generator(np.random.PCG64(99)).standard_normal(WIDTH)).astype(np.float32)


def model(seed: int) -> Model:
    rng = np.random.Generator(np.random.PCG64(seed))
    shared = rng.standard_normal((16, WIDTH)) * np.arange(1, 17)[:, None] ** -0.7
    low = rng.standard_normal((LAYERS, ROWS, 16)) @ shared
    neurons = (rng.standard_normal((LAYERS, ROWS, WIDTH)) + 0.5 * low) * _COMMON
    profile = rng.standard_normal(WIDTH)
    gains = 1 + 0.2 * profile + 0.1 * rng.standard_normal((8, WIDTH))
    return neurons.astype(np.float32), gains.astype(np.float32)


def fingerprint(made: Model, name: str) -> Fingerprint:
    neurons, gains = made
    shape = Shape(
        inventory="0" * 64, headers="0" * 64, width=WIDTH, layers=tuple(range(len(neurons))), parameters=1
    )
    bands, rounded = (torch.from_numpy(part).bfloat16().float().numpy() for part in (neurons, gains))
    return Fingerprint(
        Identity(name=name, kind=ModelKind.MODEL),
        shape,
        Bands(dict(enumerate(bands)), None, dict(enumerate(rounded))),
        layer_signatures(bands),
    )


def noisy(size: float) -> Callable[[Model, np.random.Generator], Model]:
    """A change of relative norm `size` in every layer; gains move by a tenth of that."""

    def change(made: Model, rng: np.random.Generator) -> Model:
        neurons, gains = made
        noise = rng.standard_normal(neurons.shape).astype(np.float32)
        scale = np.linalg.norm(neurons, axis=(1, 2), keepdims=True)
        noise *= size * scale / np.linalg.norm(noise, axis=(1, 2), keepdims=True)
        moved = gains * (1 + size / 10 * rng.standard_normal(gains.shape))
        return neurons + noise, moved.astype(np.float32)

    return change


def q4(made: Model, _: np.random.Generator) -> Model:
    """Round to nearest on 16 levels in blocks of 32, as Q4_0 does."""
    neurons, gains = made
    blocks = neurons.reshape(-1, 32)
    scale = np.abs(blocks).max(1, keepdims=True) / 8
    return (np.clip(np.rint(blocks / scale), -8, 7) * scale).reshape(neurons.shape).astype(np.float32), gains


def relayered(
    order: Callable[[np.random.Generator], list[int]],
) -> Callable[[Model, np.random.Generator], Model]:
    return lambda made, rng: (made[0][order(rng)], made[1])


def halved(made: Model, rng: np.random.Generator) -> Model:
    """The mean with a model that nobody knows."""
    other = model(int(rng.integers(1 << 40, 1 << 41)))
    return (made[0] + other[0]) / 2, (made[1] + other[1]) / 2


def shuffled(made: Model, rng: np.random.Generator) -> Model:
    """Neurons in another order: only the gains are left."""
    return rng.permuted(made[0], axis=1), made[1]


CHANGES: dict[str, Callable[[Model, np.random.Generator], Model]] = {
    "fine-tuned by 1 %": noisy(0.01),
    "fine-tuned by 5 %": noisy(0.05),
    "fine-tuned by 20 %": noisy(0.2),
    "changed by 100 %": noisy(1.0),
    "Q4_0": q4,
    "8 of 32 layers dropped": relayered(lambda rng: sorted(rng.permutation(32)[:24].tolist())),
    "24 of 32 layers dropped": relayered(lambda rng: sorted(rng.permutation(32)[:8].tolist())),
    "16 layers repeated": relayered(lambda _: [*range(24), *range(8, 32)]),
    "merged half and half": halved,
    "neurons shuffled": shuffled,
}


def build(folder: Path, count: int, seed: int) -> None:
    for number in range(count):
        save_fingerprint(folder, fingerprint(model(seed + number), f"model-{number}"))


def timed(folder: Path, candidate: Fingerprint) -> tuple[float, SignatureTable]:
    began = time.perf_counter()
    table = open_table(folder)
    table.search(WIDTH, candidate.signatures, candidate.gain_codes)
    return time.perf_counter() - began, table


def brute_force(folder: Path, candidate: Fingerprint) -> float:
    """Seconds to read `BRUTE` fingerprints and take every layer's cosine with every layer."""
    theirs = np.stack([band.numpy().ravel() for band in candidate.bands.layers.values()])
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    began = time.perf_counter()
    for path in sorted(folder.glob("*.safetensors"))[:BRUTE]:
        known = load_fingerprint(path)
        ours = np.stack([band.numpy().ravel() for band in known.bands.layers.values()])
        ours /= np.linalg.norm(ours, axis=1, keepdims=True)
        (ours @ theirs.T).max(0).mean()
    return time.perf_counter() - began


def recall(folder: Path, count: int, candidates: int, seed: int) -> None:
    rng = np.random.Generator(np.random.PCG64(seed + 1))
    print(f"{'change':26} recall@1   related   wrong relatives   (n = {candidates} each)")
    for name, change in CHANGES.items():
        first = found = wrong = 0
        for _ in range(candidates):
            parent = int(rng.integers(count))
            search = search_index(folder, fingerprint(change(model(seed + parent), rng), "candidate"))
            own = f"model-{parent}"
            first += search.relations[0].identity.name == own
            found += any(relation.identity.name == own for relation in search.related)
            wrong += sum(relation.identity.name != own for relation in search.related)
        print(f"{name:26} {first / candidates:8.1%}  {found / candidates:8.1%}  {wrong:8}", flush=True)


def strangers(folder: Path, table: SignatureTable, candidates: int, seed: int) -> None:
    likeness, gains, related, judged, smallest = 0.0, 0.0, 0, 0, 0.0
    for number in range(candidates):
        candidate = fingerprint(model(seed + (1 << 45) + number), "stranger")
        for hit in table.search(WIDTH, candidate.signatures, candidate.gain_codes):
            likeness, gains = max(likeness, hit.layers), max(gains, hit.gains)
        search = search_index(folder, candidate)
        related, judged = related + len(search.related), judged + len(search.relations)
        smallest = min(smallest, *(relation.log10_p for relation in search.relations))
    pairs = candidates * table.size
    print(
        f"strangers: {related} relatives among {pairs:,} pairs ({judged:,} judged exactly, the most similar)"
    )
    print(f"  largest signature cosine {likeness:.3f}, of gains {gains:.3f}; smallest log10 p {smallest:.2f}")


def main() -> None:
    count, candidates, seed = (
        int(sys.argv[index]) if len(sys.argv) > index else default
        for index, default in ((1, 20_000), (2, 40), (3, 1))
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{count} fingerprints written in {_spent(lambda: build(folder, count, seed), 1)}")
        candidate = fingerprint(model(seed), "candidate")
        first, table = timed(folder, candidate)
        size = (folder / FILE).stat().st_size
        total = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        print(f"  {total / count / 1e3:.1f} kB each; table of {size / 1e6:.1f} MB, built in {first:.2f} s")
        descriptor = os.open(folder / FILE, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
        cold = _spent(lambda: timed(folder, candidate), 1)
        warm = _spent(lambda: timed(folder, candidate))
        print(f"search of {count}: cold {cold}, warm {warm}")
        print(f"  of which opening the table: {_spent(lambda: open_table(folder))}")
        print(f"  with the exact judgement of the best: {_spent(lambda: search_index(folder, candidate))}")
        warm = min(timed(folder, candidate)[0] for _ in range(3))
        read = min(count, BRUTE)
        brute = brute_force(folder, candidate) * count / read
        print(f"  brute force over all bands: {brute:.1f} s (from {read} models), {brute / warm:.0f} times")
        strangers(folder, table, candidates, seed)
        recall(folder, count, candidates, seed)


def _spent(action: Callable[[], object], times: int = 5) -> str:
    """Least seconds by the clock and of the processor, which another job on the machine does not lengthen."""
    walls, processors = [], []
    for _ in range(times):
        wall, processor = time.perf_counter(), time.process_time()
        action()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return f"{min(walls):.3f} s ({min(processors):.3f} s of one core)"


if __name__ == "__main__":
    main()
