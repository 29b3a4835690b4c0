"""Prompt suites shipped with forkwatch, JSON (`forkwatch.prompts/1`), read by `evals.suite`."""
