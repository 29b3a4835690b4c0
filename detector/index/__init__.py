"""The index of known models: fingerprints, their search, and the judgement of what the search finds."""
