"""Checkpoints with known edits, for measuring the detector: models, edits, containers, and what to expect.

Nothing in here imports the detector but for the words (`EditKind`); the truth of a pair is what was done to
the weights, and how visible it still is in the stored values is computed from the edit itself.
"""
