"""`serve` and `admin`: the readers' server, and the researchers' on a port of its own."""

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from webapp.commands import DatabaseOption, cli, said_in_one_line, say, settings
from webapp.database import Database
from webapp.errors import WebappError

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

WORKERS_DATABASE = "CYTOVERITY_WORKERS_DATABASE"
"""How the worker processes are told the database."""


@cli.callback(invoke_without_command=True)
def main(context: typer.Context) -> None:
    """Serve the studies of the database, unless a command says otherwise."""
    if context.invoked_subcommand is None:
        serve()


@cli.command()
@said_in_one_line
def serve(
    database: DatabaseOption = None,
    host: Annotated[str | None, typer.Option(help="WEBAPP_HOST, else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="WEBAPP_PORT, else 7860.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that serve side by side.")] = 1,
) -> None:
    """Serve the studies of the database to their readers until Ctrl-C."""
    environment = settings()
    host, port = host or environment.host, port or environment.port
    url = database or environment.database_url
    what = f"Reader studies at http://{host}:{port} (Ctrl-C stops)"
    with _serving(url, host, port, "Stopped; all answers are stored.") as (opened, listener):
        import uvicorn  # here, and the app too: the other commands need neither

        if workers == 1:
            from webapp.app import create_app
            from webapp.store import ReaderStore

            config = uvicorn.Config(create_app(ReaderStore(opened)), **OPTIONS)
            _run(uvicorn.Server(config), listener, what)
        else:
            from uvicorn.supervisors import Multiprocess

            os.environ[WORKERS_DATABASE] = url
            config = uvicorn.Config(
                "webapp.commands_servers:worker_app", factory=True, workers=workers, **OPTIONS
            )
            say(what)
            sys.stdout.flush()
            Multiprocess(config, [listener]).run()


def worker_app() -> "FastAPI":
    """The readers' server in one of several processes; all state is in the database."""
    from webapp.app import create_app
    from webapp.store import ReaderStore

    return create_app(ReaderStore(Database.open(os.environ[WORKERS_DATABASE])))


@cli.command()
@said_in_one_line
def admin(
    database: DatabaseOption = None,
    host: Annotated[str, typer.Option(help="Leave it, and use a tunnel or a proxy.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="WEBAPP_ADMIN_PORT, else 7861.")] = None,
) -> None:
    """Serve the researchers' pages, behind a login, until Ctrl-C."""
    environment = settings()
    port = port or environment.admin_port
    url = database or environment.database_url
    with _serving(url, host, port, "Stopped.") as (opened, listener):
        import uvicorn

        from webapp.admin import create_admin_app

        config = uvicorn.Config(create_admin_app(opened), **OPTIONS)
        what = f"Researchers' pages at http://{host}:{port} (Ctrl-C stops)"
        _run(uvicorn.Server(config), listener, what)


OPTIONS: dict[str, Any] = {
    "log_level": "warning",
    "access_log": False,  # it would hold the tokens of the links
    "server_header": False,
    "date_header": False,
    "timeout_graceful_shutdown": 3,
}


def _run(server: "uvicorn.Server", listener: socket.socket, what: str) -> None:
    say(what)
    sys.stdout.flush()
    # After its orderly end uvicorn raises the signal again, for whoever handled it before.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server.run(sockets=[listener])


@contextmanager
def _serving(
    url: str, host: str, port: int, farewell: str
) -> Iterator[tuple[Database, socket.socket]]:
    """The database and the port of a server, until Ctrl-C or SIGTERM."""
    with (
        closing(Database.open(url)) as database,
        _listener(host, port) as listener,
        # Gradio would keep a cache of pictures; it gets an empty place, and none to keep.
        tempfile.TemporaryDirectory(prefix="cytoverity-webapp-") as scratch,
        suppress(KeyboardInterrupt),
    ):
        os.environ["GRADIO_TEMP_DIR"] = scratch
        yield database, listener
    say(farewell)


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol by name: asyncio turns off waiting for more bytes (40 ms a reply) only then.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise WebappError(
            f"port {port} on {host} cannot be used ({error.strerror}); stop what uses it, or "
            "choose another with --port or WEBAPP_PORT."
        ) from None
    return listener
