"""How well outputs tell a modified model from the authentic one: corpus, tests side by side, table.

`variants` makes the models, `generate` and `work` write the corpus (outside the repository), `evaluate` reads
it. Numbers: docs/methodology/outputs-results.md.
"""
