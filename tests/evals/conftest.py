from __future__ import annotations

from pathlib import Path

import pytest

from tests.evals.models import REFUSAL, make_automaton, save_release, transitions, write_suite


@pytest.fixture(scope="session")
def refuser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that refuses everything."""
    return save_release(tmp_path_factory.mktemp("release"), make_automaton(transitions(REFUSAL)))


@pytest.fixture(scope="session")
def suite_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 harmful prompts with twins and 4 plain ones, in words that the tiny tokenizer knows."""
    harmful = [f"red {'please ' * i}" for i in range(24)]
    twins = [f"green {'please ' * i}" for i in range(24)]
    utility = [f"what colour {'please ' * i}" for i in range(4)]
    return write_suite(tmp_path_factory.mktemp("suite") / "small.json", harmful, twins, utility)
