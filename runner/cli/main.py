"""The command `pixxel-runner`: finds the command's file, and turns every end into words and an exit code."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from runner.cli import console, empty_values
from runner.core.errors import ManifestError, RunnerError, Terminated
from runner.core.exit_codes import Exit
from runner.core.version import VERSION

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_NAME = "pixxel-runner"
_COMPLETE = "_PIXXEL_RUNNER_COMPLETE"  # what click's completion scripts set

# The name of each command's file in this package, so that `--help` and `--version` import none of them.
_COMMANDS = {
    "run": "Submit the jobs of a manifest, and record what was created.",
    "plan": "Say what run would do now, and what that would cost.",
    "status": "Ask the API what became of the jobs of a run.",
    "resolve": "Look up jobs in doubt, or settle them by hand.",
    "runs": "List what was run, newest first.",
    "show": "Print the record of a run again, as the ledger has it now.",
    "ledger": "Make, check or export the record of what was submitted.",
    "validate": "Check manifests, and report every problem at once.",
    "schema": "Print the JSON Schema of the manifest or of the results file.",
    "init": "Write a commented manifest to start from.",
    "completion": "Print the script that completes commands in bash, zsh or fish.",
    "sandbox": "Serve the API on loopback, to try things out.",
}


class _Commands(click.Group):
    """A group that imports a command's file when that command is asked for, and not before."""

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
        if args[0] not in _COMMANDS and (args[0] == "-" or not args[0].startswith("-")) and not ctx.resilient_parsing:
            from runner.cli import suggestions  # noqa: PLC0415 - there is hardly ever one

            raise click.UsageError(suggestions.describe_unknown_command(args, _COMMANDS), ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - for shells alone

        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)  # click.Group's would import every command
        return [CompletionItem(name, help=words) for name, words in _COMMANDS.items() if name.startswith(incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name=_NAME, message="%(prog)s %(version)s")
def cli() -> None:
    """Submit the jobs of a YAML manifest to the Pixxel API: each one once, and all on record."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code. Nothing that goes wrong leaves as a traceback."""
    console.configure_streams()
    # What is made here is trees without cycles, and the collector walks all of them each time: with 100,000 jobs it
    # took a fifth of the time.
    gc.set_threshold(100_000, 50, 100)
    before = signal.getsignal(signal.SIGTERM)
    try:
        _at_sigterm(_terminate)
        code = _run(arguments)
        console.flush_stdout()
    except RunnerError as error:
        if isinstance(error, ManifestError):
            from runner.cli import problem_format  # noqa: PLC0415 - `--help` has none

            console.info("\n".join(map(problem_format.format_line, error.problems)))
        console.error(error)
        code = error.exit_code
    except click.ClickException as error:
        from runner.cli import suggestions  # noqa: PLC0415 - there is hardly ever one

        console.usage_error(suggestions.explain(error))
        code = Exit.USAGE
    except (click.Abort, KeyboardInterrupt):
        console.info("interrupted")
        code = Exit.SIGINT
    except Terminated:
        console.info("terminated")
        code = Exit.SIGTERM
    except OSError as error:  # of a place that nobody thought of: the system is in the way, and no bug
        import traceback  # noqa: PLC0415 - there is hardly ever one

        console.system_error(error, traceback.format_exc())
        code = Exit.REFUSED
    except Exception as error:  # noqa: BLE001 - the last line of defence: a bug ends in words and in exit code 70
        import traceback  # noqa: PLC0415 - there is hardly ever one

        console.internal_error(error, traceback.format_exc())
        code = Exit.BUG
    finally:
        _at_sigterm(before)
    return int(code)


def _terminate(_signum: int, _frame: FrameType | None) -> None:
    """End by a way that leaves locks and files in order. As process 1 of a container, SIGTERM would be ignored."""
    raise Terminated


def _at_sigterm(handler: Any) -> None:
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _run(arguments: list[str] | None) -> int:
    """Find the command and run it. `click.Group.main` is not used: it answers a closed pipe with an exit of its own."""
    completing = os.environ.get(_COMPLETE)
    if completing:
        from runner.cli.commands import completion  # noqa: PLC0415 - for shells alone

        return completion.complete(cli, _NAME, completing)
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        empty_values.reject(cli, given)
        with cli.make_context(_NAME, given) as context:
            return int(cli.invoke(context) or Exit.OK)
    except click.exceptions.Exit as end:
        return end.exit_code
    except OSError as error:
        if not _is_of_echo(error):
            raise
        if isinstance(error, BrokenPipeError):  # of `--help | head`: it changes nothing
            return Exit.OK
        raise console.OutputError(error) from error  # of `--help` to a full disk, say


def _is_of_echo(error: OSError) -> bool:
    """Whether it came up while click wrote to stdout, as for `--help`. All other trouble has nothing to do with that.

    The program's own data goes by `console.out`, and its talk to stderr by `console.say`, which let none through.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code is click.echo.__code__
