"""Killing the daemon at named steps: `points` says where, `orders` when, `sitecustomize` does it."""
