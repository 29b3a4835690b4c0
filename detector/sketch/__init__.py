"""Stage 4: what can be said about a fork from its headers and a few row bands, before it is downloaded.

Row-major storage makes a band of rows one contiguous range, so the fork is read with HTTP range requests,
in three rounds: neurons of every layer (`lineage`), a few rows of every tensor (`plan`, `survey`), and more
rows of a few changed ones (`probe`). The bands name edits (`direction`, `shape`, `beside`, `naming`). They
prove nothing; hashes of whole files prove a copy without any (`copies`).
"""

from detector.sketch.copies import sketch_copy
from detector.sketch.take import sketch_weights

__all__ = ["sketch_copy", "sketch_weights"]
