"""The command `pixxel-runner`: finds the module of a command, and turns errors into messages and exit codes."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import threading
from itertools import pairwise
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from runner.cli import console
from runner.core.errors import ManifestError, RunnerError, Terminated, UsageError
from runner.core.exit_codes import Exit
from runner.core.version import VERSION

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_NAME = "pixxel-runner"
_COMPLETION_VARIABLE = "_PIXXEL_RUNNER_COMPLETE"  # set by click's completion scripts

# The name of each command's module, so that `--help` and `--version` need not import them.
_COMMANDS = {
    "run": "Submit the jobs of manifests.",
    "plan": "Show what `run` would do, and what it would cost.",
    "status": "Show the status of a run's jobs at the API.",
    "resolve": "Look up jobs in doubt, or settle them by hand.",
    "runs": "List runs, newest first.",
    "show": "Show a run as it is in the ledger now.",
    "ledger": "Create, check or export ledgers.",
    "validate": "Check manifests and report all their problems.",
    "schema": "Print the JSON Schema of the manifest or of the results file.",
    "init": "Write a commented manifest to start from.",
    "completion": "Print the completion script for bash, zsh or fish.",
    "sandbox": "Serve the API on loopback, for trials.",
}


class _Commands(click.Group):
    """A group that imports the module of a command only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"runner.cli.commands.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        is_option = args[0].startswith("-") and len(args[0]) > 1
        if args[0] not in _COMMANDS and not is_option and not ctx.resilient_parsing:
            from runner.cli import suggestions  # noqa: PLC0415 - rarely needed

            raise click.UsageError(suggestions.describe_unknown_command(args, _COMMANDS), ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only for shells

        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)  # click.Group's would import every command
        return [CompletionItem(name, help=text) for name, text in _COMMANDS.items() if name.startswith(incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), f"{code.meaning[0].upper()}{code.meaning[1:]}.") for code in Exit])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name=_NAME, message="%(prog)s %(version)s")
def cli() -> None:
    """Submit the jobs of a YAML manifest to the Pixxel API, without creating one twice or losing track of one."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code. Errors become messages, never tracebacks."""
    console.configure_streams()
    # The objects of a run form trees without cycles, which the collector would traverse again and again: with 100,000
    # jobs it took a fifth of the time.
    gc.set_threshold(100_000, 50, 100)
    previous_handler = signal.getsignal(signal.SIGTERM)
    try:
        _handle_sigterm(_terminate)
        code = _run(arguments)
        console.flush_stdout()
    except BaseException as error:  # noqa: BLE001 - the last resort, also for interrupts and bugs
        code = _report(error)
    finally:
        _handle_sigterm(previous_handler)
    return int(code)


def _report(error: BaseException) -> Exit:
    """Write what went wrong to stderr, and return the exit code. Raises what is no error, such as SystemExit."""
    match error:
        case RunnerError():
            if isinstance(error, ManifestError):
                from runner.cli import problem_format  # noqa: PLC0415 - not for `--help`

                console.info("\n".join(map(problem_format.format_line, error.problems)))
            console.error(error)
            return error.exit_code
        case click.ClickException():
            from runner.cli import suggestions  # noqa: PLC0415 - rarely needed

            console.usage_error(suggestions.explain(error))
            return Exit.USAGE
        case click.Abort() | KeyboardInterrupt():
            console.info("interrupted")
            return Exit.SIGINT
        case Terminated():
            console.info("terminated")
            return Exit.SIGTERM
        case OSError():  # from a place that does not expect one: a problem of the system, not a bug
            console.system_error(error)
            return Exit.REFUSED
        case Exception():
            console.internal_error(error)
            return Exit.BUG
        case _:
            raise error


def _terminate(_signum: int, _frame: FrameType | None) -> None:
    """Exit by an exception, which cleans up locks and files. By default, process 1 of a container ignores SIGTERM."""
    raise Terminated


def _handle_sigterm(handler: Any) -> None:
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _run(arguments: list[str] | None) -> int:
    """Find the command and run it. Not by `click.Group.main`, which has an exit code of its own for a closed pipe."""
    instruction = os.environ.get(_COMPLETION_VARIABLE)
    if instruction:
        from runner.cli.commands import completion  # noqa: PLC0415 - only for shells

        return completion.complete(cli, _NAME, instruction)
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _reject_empty(words)
        with cli.make_context(_NAME, words) as context:
            return int(cli.invoke(context) or Exit.OK)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except OSError as error:
        if not _is_from_echo(error):
            raise
        if isinstance(error, BrokenPipeError):  # `--help | head` changes nothing
            return Exit.OK
        raise console.OutputError(error) from error


def _reject_empty(words: list[str]) -> None:
    """Raise UsageError if an argument is empty, mostly by a shell variable that was never set.

    An empty path would mean the current directory, and an empty choice all.
    """
    hint = 'If it comes from a shell variable ("$NAME"), check that it is set. Pass a value, or omit the argument.'
    for previous, word in pairwise(["", *words]):
        if not word:
            raise UsageError(f"the {f'argument after {previous}' if previous else 'first argument'} is empty", hint)
        if word.startswith("--") and word.endswith("=") and word.count("=") == 1:
            raise UsageError(f"the value of {word[:-1]} is empty", hint)


def _is_from_echo(error: OSError) -> bool:
    """Whether click failed to write to stdout, as for `--help`. Our own output goes through `console.output`."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code is click.echo.__code__
