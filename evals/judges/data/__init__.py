"""The fragments that the built-in judge learns from, and what it learned. See `benchmarks/train_judge.py`."""
