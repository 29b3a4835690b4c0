"""Which workers run, before and after settings are read again."""

from __future__ import annotations

import pytest

from forkwatch.daemon import on_ray
from forkwatch.daemon.processes import Processes
from forkwatch.daemon.supervisor import _renewed_workers, slots
from forkwatch.errors import SettingsError
from forkwatch.jobs.interface import Role
from forkwatch.sections.judging import EvaluationSettings
from forkwatch.sections.running import DaemonSettings
from forkwatch.settings import Settings

THREE = DaemonSettings(eval_workers=3)


def gpus(device: str) -> int:
    return 0 if device == "cpu" else 2


def test_evaluators_see_a_gpu_each_also_when_the_settings_say_so_later() -> None:
    before = Settings(daemon=THREE, evaluation=EvaluationSettings(device="cpu"))
    after = Settings(daemon=THREE, evaluation=EvaluationSettings(device="cuda"))
    pool = Processes(["false"], before, slots(before, gpus))
    assert {slot.gpu for slot in pool.wanted} == {None}
    _renewed_workers(pool, before, after, gpus)
    assert [slot.gpu for slot in pool.wanted if slot.role is Role.EVAL] == [0, 1, 0]
    assert {slot.gpu for slot in pool.wanted if slot.role is not Role.EVAL} == {None}


def test_ray_places_its_own() -> None:
    settings = Settings(daemon=DaemonSettings(ray_address="auto", eval_workers=2))
    assert {slot.gpu for slot in slots(settings, gpus)} == {None}


def test_a_cluster_that_does_not_answer_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(on_ray, "ANSWER_SECONDS", 0.05)
    with pytest.raises(SettingsError, match=r"127\.0\.0\.1:1: nothing within"):
        on_ray.require_cluster("127.0.0.1:1")
