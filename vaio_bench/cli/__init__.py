"""The command line: one file a verb, listed here; each a thin caller of the Python function."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Annotated, Any

import typer

from vaio_bench.errors import VaioBenchError

# One line a verb: the module below this package whose `register(app)` adds it.
VERBS: tuple[str, ...] = (
    "import_",
    "synth",
    "info",
    "replay",
    "compare",
    "sweep",
    "fidelity",
    "certify",
    "rpo",
    "cache",
    "fio",
    "site",
    "recover",
    "report",
    "explain",
    "abi",
    "doctor",
    "demo",
)


# typer exports the errors of a wrong command line, but not what they have in common.
_UsageError: Any = typer.BadParameter.__bases__[0]
_INTERRUPTED = 130


def _tell_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"vaio-bench {version('vaio-bench')}")
        raise typer.Exit


def _general(
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_tell_version, help="The version."),
    ] = False,
) -> None:
    """Adds the options of the command itself."""


def build_app() -> typer.Typer:
    """The typer application with every verb of `VERBS`."""
    app = typer.Typer(
        name="vaio-bench",
        help="What an I/O filter costs, which RPO it gives and what a cache hits.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_general)
    for verb in VERBS:
        importlib.import_module(f"vaio_bench.cli.{verb}").register(app)
    return app


def main() -> None:
    """Entry point of `vaio-bench`: maps errors to one line on stderr and an exit status."""
    # Told to end by a service manager, a run keeps what it has, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # Left to itself typer would say nothing after Ctrl-C, and three lines of a wrong option.
        status = build_app()(standalone_mode=False)
    except VaioBenchError as error:
        print(f"vaio-bench: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except _UsageError as error:
        message = error.format_message()
        # Without any argument the message is the help.
        print(message if "\n" in message else f"vaio-bench: {message}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as ended:
        # typer and rich end with 1 where the reader of our standard output has gone, as in
        # `... | head`: that is no error of ours.
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    if status == _INTERRUPTED:
        print("vaio-bench: interrupted", file=sys.stderr)
    sys.exit(status)
