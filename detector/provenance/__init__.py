"""Who published these bytes: OpenSSF model-signing bundles, trust, listings, and signed statements.

Read `interface.py` first. The package imports the standard library, `cryptography` and, where they are used,
`model_signing` and `sigstore`; nothing else, so that an application can check a checkpoint before loading it.
"""
