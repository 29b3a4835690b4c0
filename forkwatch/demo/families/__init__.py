"""Model families for the loopback hub: a release with a safety adapter of ours, and forks made from it.

`family.py` has the types, `build.py` the entry points, `forks.py` the catalogue of forks. Safety is only ever
removed by leaving out the adapter that we trained ourselves.
"""
