"""Opening a session: settings, state, database and Hub, closed again in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import cache, partial
from typing import TYPE_CHECKING, cast

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import ArgumentError, DBAPIError

from forkwatch.alerts import rules
from forkwatch.cli.output import progress
from forkwatch.clock import is_held, result_clock
from forkwatch.errors import ForkwatchError, SettingsError
from forkwatch.logs import redacted
from forkwatch.pipeline.context import Context, Talk
from forkwatch.sections.hub import DEMO_ENDPOINT
from forkwatch.settings import Settings, gib, hub_token, load_settings
from forkwatch.state import StateDir, find_state_dir
from forkwatch.store.engine import open_engine
from forkwatch.store.store import Store

if TYPE_CHECKING:
    from crawler.interface import Hub


def utc_now() -> datetime:
    """What is stored and printed as the time of a result."""
    return result_clock()


def isolating_settings(
    settings: Settings | None = None, *, required: bool, evaluates: bool = True
) -> Settings:
    """The settings, with isolation required if the command says so; it is tried before anything is fetched.

    Args:
        settings: None: as they are read.
        required: By the command line; the settings may require it as well.
        evaluates: The command may run a fork.

    Raises:
        IsolationError: it is required, and this machine does not give it.
    """
    settings = settings or load_settings()
    if required:
        evaluation = settings.evaluation.model_copy(update={"require_isolation": True})
        settings = settings.model_copy(update={"evaluation": evaluation})
    if evaluates and settings.evaluation.require_isolation:
        from evals.sandbox import admit
        from forkwatch.pipeline.limits import limits_of

        admit(settings.evaluation.device, limits_of(settings.evaluation))
    return settings


@contextmanager
def session(
    settings: Settings | None = None, state: StateDir | None = None, talk: Talk | None = None
) -> Iterator[Context]:
    """Everything a command needs, for the length of the command; `talk` None: progress on stderr."""
    settings = settings or load_settings()
    state = open_state(state)
    with ExitStack() as stack:
        talk = talk or stack.enter_context(progress())
        endpoint, token = _endpoint(settings, state, stack)
        hub = cast("Hub", _LaterHub(partial(_hub, settings, state, endpoint, token, stack)))
        store = Store(open_database(settings, state), utc_now, rules(settings.alerts))
        stack.callback(store.close)
        yield Context(hub, store, state, settings, utc_now, talk, costs=not is_held())


def open_state(state: StateDir | None = None) -> StateDir:
    """The state folder, made if it is not there; None: where the environment says.

    Raises:
        SettingsError: it cannot be made.
    """
    state = state or find_state_dir()
    try:
        state.create()
    except OSError as error:
        raise SettingsError(
            f"cannot write to {state.root}: {error.strerror}", tip="Set FORKWATCH_STATE_DIR."
        ) from error
    return state


class DatabaseError(ForkwatchError):
    """The database does not answer."""

    tip = "Check [database] url, and that the server runs; a full disk is another reason."


def open_database(settings: Settings, state: StateDir) -> Engine:
    """The database of the settings, its tables up to date.

    Raises:
        DatabaseError: it does not answer, or its tables cannot be made.
        SettingsError: the address is none.
    """
    url = database_url(settings, state)
    check_address(url)
    try:
        return open_engine(url)
    except DBAPIError as error:
        raise DatabaseError(f"the database cannot be opened: {redacted(str(error.orig))}") from error


def check_address(url: str) -> None:
    """See that an address is one of a database, and that its driver is here; nobody is asked.

    Raises:
        SettingsError: it is not. Without the address, which may hold a password.
    """
    try:
        create_engine(url)
    except (ArgumentError, ImportError) as error:
        raise SettingsError(
            "database.url is no address of a database that this program knows",
            tip="Like postgresql+psycopg://user:password@host/name (extra `postgres`).",
        ) from error


class _LaterHub:
    """Made when it is asked something: the network stack costs more than a small site."""

    def __init__(self, make: Callable[[], Hub]) -> None:
        self._make = cache(make)

    def __getattr__(self, name: str) -> object:
        return getattr(self._make(), name)


def _hub(settings: Settings, state: StateDir, endpoint: str, token: str | None, stack: ExitStack) -> Hub:
    from crawler.client import HubClient

    hub = HubClient(
        endpoint=endpoint,
        token=token,
        cache=state.cache,
        free_space_floor=gib(settings.hub.free_space_floor_gb),
        cache_quota=gib(settings.hub.cache_quota_gb),
        repo_budget=gib(settings.hub.repo_budget_gb),
        timeout=settings.hub.timeout_seconds,
        retries=settings.hub.retries,
    )
    stack.callback(hub.close)
    return hub


def database_url(settings: Settings, state: StateDir) -> str:
    """Where the database is. It may hold a password: never shown."""
    url = settings.database.url
    return f"sqlite:///{state.database}" if url is None else url.get_secret_value()


def _endpoint(settings: Settings, state: StateDir, stack: ExitStack) -> tuple[str, str | None]:
    """Where the Hub is and the token for it; the demo's hub is started for the length of the session."""
    secret = hub_token()
    token = None if secret is None else secret.get_secret_value()
    if settings.hub.endpoint != DEMO_ENDPOINT:
        return settings.hub.endpoint, token
    from forkwatch.demo.serve import demo_hub

    return stack.enter_context(demo_hub(state.demo)).endpoint, token
