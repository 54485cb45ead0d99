"""The command line: one command a module, imported when it is used."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import traceback
from typing import NoReturn

import click

from fluxconv.commands import output
from fluxconv.converters.errors import BadInput, FluxconvError, Interrupted

#: Command -> (module in this package, attribute), in the order of the help.
_COMMANDS = {
    "backends": "backends",
    "inspect": "inspect",
    "plan": "plan",
    "importance": "importance",
    "quantize": "quantize",
    "dequantize": "dequantize",
    "validate": "validate",
    "benchmark": "benchmark",
    "recommend": "recommend",
    "generate": "generate",
    "card": "card",
    "push": "push",
    "download": "download",
    "verify": "verify",
    "recipe": "recipe",
    "run": "run",
    "status": "status",
    "hub": "hub",
}

EXIT_CODES = """\b
Exit codes: 0 done, 1 failed check, 2 usage, 3 bad input, 4 missing library
or device, 5 Hub refused, 130 interrupted.
"""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"fluxconv.commands.{_COMMANDS[name]}")
        command: click.Command = module.command
        return command


@click.command(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.version_option(package_name="fluxconv", message="fluxconv %(version)s")
def cli() -> None:
    """Turn a Flux checkpoint into quantized variants, check their pictures, publish them."""


def main() -> NoReturn:
    """Run the command line and exit with its documented code."""
    code = run(sys.argv[1:])
    if code == Interrupted.exit_code:
        # Threads in the midst of compiled code cannot be ended in order: some abort the process.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    # Else the interpreter looks through everything that torch has made before it goes.
    gc.freeze()
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command; returns the exit code. No traceback reaches the user without -v, and no
    token ever."""
    from fluxconv.hub.redaction import redacting_output

    with redacting_output():
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    try:
        cli.main(arguments, prog_name="fluxconv", standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show(sys.stderr)
        return 2
    except FluxconvError as error:
        return _fail(error)
    except (KeyboardInterrupt, click.Abort):
        return _fail(Interrupted("interrupted; give the same command again to go on"))
    except SystemExit:
        return 0  # click's way to end when the reader of our pipe went away, as `head` does
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(BadInput(f"{where}{error.strerror or error}"))
    except Exception as error:  # noqa: BLE001 - the last line of defence: say it, do not spill it
        text = f"unexpected {type(error).__name__}: {error} (run again with -v for the traceback)"
        return _fail(FluxconvError(text))
    return 0


def _fail(error: FluxconvError) -> int:
    if output.current.verbose:
        traceback.print_exc()
    output.current.error(error)
    return error.exit_code
