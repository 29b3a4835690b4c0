"""What training and classifying cost: processor seconds, memory, file sizes, outputs a second.

python -m benchmarks.attribution.costs CORPUS
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.attribution.corpus import read_blocks
from benchmarks.attribution.evaluate import CELLS
from benchmarks.attribution.features import sample_of
from benchmarks.attribution.labels import pack_of
from benchmarks.attribution.variants import VARIANTS
from detector.outputs.classifier import Mode, assess
from detector.outputs.classifier_files import read_classifier, write_classifier
from detector.outputs.gather import Outputs, gather
from detector.outputs.interface import ALPHA
from detector.outputs.training import train


def main() -> None:
    """One line a cost."""
    corpus = Path(sys.argv[1])
    pack = pack_of(corpus)
    forks = [sample_of(blocks[:1]) for v in VARIANTS if (blocks := read_blocks(corpus, v.name, "seed"))]
    cells = [sample_of(blocks) for cell in CELLS if (blocks := read_blocks(corpus, "authentic", cell))]
    pack = replace(pack, samples=(*cells, *forks))
    outputs = sum(len(sample.scored) for sample in pack.samples)
    before = peak()
    started = time.process_time()
    classifier = train(pack)
    print(
        f"training on {outputs} outputs: {time.process_time() - started:.1f} s, "
        f"peak {peak():.0f} MB ({before:.0f} before)"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_classifier(classifier, Path(folder) / "c")
        size = sum(path.stat().st_size for path in (Path(folder) / "c").iterdir())
        print(f"stored: {size / 1e6:.2f} MB")
        read_classifier(Path(folder) / "c")
    tested = [one for sample in forks for one in sample.scored][:4000]
    for mode in Mode:
        started = time.process_time()
        classifier.log_odds(mode, tested)
        print(f"{mode.value} log-odds: {len(tested) / (time.process_time() - started):.0f} outputs a second")
    started = time.process_time()
    for start in range(0, len(tested), 40):
        assess(classifier, tested[start : start + 40])
    print(f"assess, 40 at a time: {len(tested) / (time.process_time() - started):.0f} outputs a second")
    started = time.process_time()
    for start in range(0, 800, 40):
        gather(
            Outputs(scored=tuple(tested[start : start + 40])),
            pack_of(corpus) if not start else pack,
            alpha=ALPHA,
        )
    print(f"every test of classify, 40 at a time: {(time.process_time() - started) / 20:.2f} s a set")


def peak() -> float:
    """Resident memory so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
