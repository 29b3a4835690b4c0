"""Judges: what an answer does to a request. Read `interface.py` first."""
