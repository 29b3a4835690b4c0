"""compose.yaml and the systemd unit name only what the image and the program have."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from forkwatch.cli.app import app
from tests.test_dockerfile import instructions, last

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def knows(words: list[str]) -> bool:
    """The program has this command, with these options."""
    command = [word for word in words if not word.startswith("-")][:1]
    options = [word for word in words if word.startswith("--")]
    shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    return shown.exit_code == 0 and all(option in shown.output for option in options)


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_fits_image_and_program(name: str) -> None:
    service = OURS[name]
    target = service["build"]["target"]
    assert service["image"] == f"forkwatch:{target}"
    assert knows(service["command"])
    assert last(target, "ENTRYPOINT") == '["forkwatch"]', "the command is given to it"
    places = {volume.split(":")[1] for volume in service["volumes"]}
    assert last(target, "VOLUME") in places
    assert service["environment"]["FORKWATCH_CONFIG"] in places
    assert service["init"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in service, "it is the image's"
    check = service["healthcheck"]
    assert check.get("disable") or check["test"][1] == "forkwatch"
    assert check.get("disable") or knows(check["test"][2:])


def test_one_service_takes_the_image_s_health_check_as_it_is() -> None:
    ours, image = SERVICES["daemon"]["healthcheck"], last("cpu", "HEALTHCHECK")
    for option, value in (("interval", "1m"), ("timeout", "20s"), ("retries", 3)):
        assert str(ours[option]) == str(value)
        assert f"--{option}={value}" in image


def test_what_services_name_is_declared() -> None:
    for service in SERVICES.values():
        named = {volume.split(":")[0] for volume in service["volumes"]}
        assert {name for name in named if not name.startswith(".")} <= set(COMPOSE["volumes"])
        assert set(service.get("networks", [])) <= {"default", *COMPOSE["networks"]}
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
    for variable, value in SERVICES["daemon"]["environment"].items():
        if variable.endswith("_FILE"):
            assert value.removeprefix("/run/secrets/") in SERVICES["daemon"]["secrets"]


def test_the_evaluator_has_a_gpu_and_no_way_out() -> None:
    gpu = SERVICES["gpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    assert gpu["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"]["internal"]
    assert "secrets" not in gpu
    assert "HF_TOKEN_FILE" not in gpu["environment"]
    assert gpu["profiles"] == ["gpu"]
    assert "NVIDIA_VISIBLE_DEVICES" in last("gpu", "ENV")


def test_the_web_server_may_only_read() -> None:
    web = SERVICES["web"]
    assert all(volume.endswith(":ro") for volume in web["volumes"])
    assert not set(web) & {"secrets", "environment", "build"}


def test_the_container_stops_later_than_the_daemon() -> None:
    """Grace of a job (60 s), and what stopping takes."""
    assert OURS["daemon"]["stop_grace_period"] == "2m"
    assert int(unit()["Service"]["TimeoutStopSec"]) > 60


def unit() -> configparser.ConfigParser:
    """The systemd unit; of an option that stands twice, the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as configparser documents it
    parser.read(ROOT / "deploy" / "forkwatch.service")
    return parser


def test_the_unit_starts_a_command_of_ours_and_speaks_as_the_daemon_does() -> None:
    service = unit()["Service"]
    assert service["ExecStart"].split()[0].endswith("/forkwatch")
    assert knows(service["ExecStart"].split()[1:])
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert int(service["WatchdogSec"]) >= 30
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert service["Restart"] == "on-failure"
    assert service["NoNewPrivileges"] == "yes"


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    """By its own reading of every option; the program is another one, for ours is not installed there."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not here")
    text = (ROOT / "deploy" / "forkwatch.service").read_text()
    file = tmp_path / "forkwatch.service"

    def verdict(text: str) -> str:
        file.write_text(text.replace("/opt/forkwatch/bin/forkwatch", "/bin/true"))
        done = subprocess.run(
            [program, "verify", "--man=no", str(file)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
        )
        return "\n".join(line for line in done.stderr.splitlines() if "forkwatch.service" in line)

    assert verdict(text) == ""
    assert "Lvalue" in verdict(text.replace("WatchdogSec", "WatchdogSecs")) or "Unknown key" in verdict(
        text.replace("WatchdogSec", "WatchdogSecs")
    )


def test_images_of_others_are_pinned_to_a_release() -> None:
    for name, service in SERVICES.items():
        if name not in OURS:
            assert ":" in service["image"]
            assert not service["image"].endswith(":latest")
    assert instructions("cpu")
