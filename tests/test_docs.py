"""The documentation says what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from forkwatch.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_generated_references_are_current() -> None:
    """Findings pages, exit codes and the command line reference are what the code would generate."""
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], check=False, cwd=ROOT, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    """Every relative link of a page leads to a file of the repository."""
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]

    assert broken == []


def test_readme_names_every_command() -> None:
    """A command that README does not mention does not exist for a newcomer."""
    readme = (ROOT / "README.md").read_text()
    names = [command.name for command in app.registered_commands] + [
        group.name for group in app.registered_groups
    ]

    assert [name for name in names if f"forkwatch {name}" not in readme] == []


def test_architecture_names_only_what_exists() -> None:
    """Every module path in ARCHITECTURE.md exists."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    paths = re.findall(
        r"`((?:crawler|detector|evals|reports|forkwatch|pipeline|cli|store|policy)/[\w/]*\.?\w*)`", text
    )
    missing = [
        path for path in paths if not (ROOT / path).exists() and not (ROOT / "forkwatch" / path).exists()
    ]

    assert missing == []


def test_help_imports_nothing_heavy() -> None:
    """`forkwatch --help` stays instant because no command imports its libraries before it runs."""
    heavy = {"torch", "transformers", "sklearn", "scipy", "huggingface_hub", "sqlmodel", "pydantic"}
    code = f"import forkwatch.cli.app, sys; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"


def test_groups_that_are_read_alone_are_whole() -> None:
    """`forkwatch report ...` reads one module: no other adds a command to its group."""
    code = """
from importlib import import_module
from forkwatch.cli.entry import GROUPS
groups = {name: import_module(f"forkwatch.cli.{name}").app for name in GROUPS}
alone = {name: len(group.registered_commands) for name, group in groups.items()}
from forkwatch.cli.app import app
whole = {group.name: group.typer_instance for group in app.registered_groups if group.name in GROUPS}
print(whole == groups and alone == {name: len(group.registered_commands) for name, group in whole.items()})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "True"


def test_commands_that_are_read_alone_are_the_same() -> None:
    """`forkwatch diff` is one function, however it is reached, and reads neither the store nor torch."""
    code = """
import sys
from importlib import import_module
from forkwatch.cli.entry import ALONE
import forkwatch.pipeline.pair_document, forkwatch.picture, detector.diff
print({"torch", "sqlalchemy", "sqlmodel", "scipy"} & set(sys.modules))
functions = {name: getattr(import_module(f"forkwatch.cli.{name}"), name) for name in ALONE}
from forkwatch.cli.app import app
print(functions == {each.name: each.callback for each in app.registered_commands if each.name in ALONE})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["set()", "True"]
