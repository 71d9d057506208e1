"""The command `sandbox`: serves the API on loopback until it is asked to stop."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click

from runner.cli import console
from runner.core.errors import UsageError
from runner.core.exit_codes import Exit
from runner.sandbox import faults as rehearsal
from runner.sandbox.backend import Backend
from runner.sandbox.catalog import Catalog, Workflow
from runner.sandbox.faults import Fault
from runner.sandbox.server import Sandbox
from runner.sandbox.store import JobFile

_STOPS = (signal.SIGINT, signal.SIGTERM)
_MOST_LISTED = 20


@click.command("sandbox")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default="any free one",
    help="The port on 127.0.0.1 to listen on.",
)
@click.option(
    "--key",
    default="sandbox-key",
    show_default=True,
    metavar="KEY",
    help="The API key that is accepted. It is no secret: don't use a real one.",
)
@click.option(
    "--fault",
    "fault_texts",
    multiple=True,
    metavar="KIND=SHARE",
    help="Make a share of the POSTs fail. KIND is rate-limit[:SECONDS], bad-gateway, reset, slow[:SECONDS] or failure "
    "(the job fails halfway, in addition to any other fault); SHARE is a number from 0 to 1, or a percentage. "
    "Repeatable.",
)
@click.option(
    "--seed", type=int, metavar="N", help="Draw the same faults as another sandbox with this seed.  [default: random]"
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    metavar="DIR-or-FILE",
    help="Keep the jobs here, over restarts: in DIR/jobs.jsonl, or in FILE if it ends in .jsonl.  [default: nowhere]",
)
@click.option(
    "--manifest",
    "manifests",
    multiple=True,
    metavar="FILE",
    help="Know the workflows and projects of this manifest too (- for standard input). May be given again.",
)
@click.option("--verbose", is_flag=True, help="Say each request's method, path and status.")
def command(
    port: int,
    key: str,
    fault_texts: tuple[str, ...],
    seed: int | None,
    state: Path | None,
    manifests: tuple[str, ...],
    verbose: bool,
) -> Exit:
    """Serve the Pixxel API on loopback, to try things out and to rehearse faults.

    Its jobs cost nothing. Once it listens it prints the two lines that point other commands at it, and what it knows
    as comments; it serves until Ctrl-C or SIGTERM.
    """
    _check_key(key)
    faults = rehearsal.check_shares(rehearsal.parse_fault(text) for text in fault_texts)
    seed = secrets.randbelow(2**32) if seed is None else seed
    pairs = _pairs(manifests)
    with _stops_blocked(), Backend(store=JobFile(state) if state else None) as world:
        world.add_pairs(pairs)
        with Sandbox(world, key=key, faults=faults, seed=seed, port=port, log=_log if verbose else None) as sandbox:
            _greet(sandbox, key, faults, seed)
            signal.sigwait(_STOPS)
        console.info(f"{world.created} {'job was' if world.created == 1 else 'jobs were'} created")
    return Exit.OK


def _check_key(key: str) -> None:
    if not key or not key.isascii() or not key.isprintable() or key != key.strip():
        raise UsageError(
            "--key: this could not be sent in a header", "Take printable ASCII, without blanks at its ends."
        )


def _pairs(manifests: Iterable[str]) -> list[tuple[str, str]]:
    if not manifests:
        return []
    from runner.manifest import loader  # noqa: PLC0415 - YAML and JSON Schema are slow to import

    return [job.pair for path in manifests for job in loader.load(path, console.stdin()).jobs]


@contextlib.contextmanager
def _stops_blocked() -> Iterator[None]:
    """Hold back the signals that stop the sandbox until they are waited for, so that none can cut a step in half.

    The threads that are started inside inherit this, so the signals reach the one thread that waits.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _greet(sandbox: Sandbox, key: str, faults: Sequence[Fault], seed: int) -> None:
    """Say what is rehearsed, then print what is to be pasted: who has read that may send requests at once."""
    if faults:
        shares = ", ".join(f"{fault.kind} {fault.share:.4g}" for fault in faults)
        console.info(f"faults: {shares}; --seed {seed} gives the same ones again")
    console.info("serving until Ctrl-C")
    exports = [
        f"export PIXXEL_BASE_URL={sandbox.base_url}",
        f"export PIXXEL_API_KEY={shlex.quote(key)}",
    ]
    console.output("\n".join([*exports, "", *_listing(sandbox.backend.catalog)]))


def _listing(catalogue: Catalog) -> list[str]:
    """What can be run, as comments of a shell, so that all of the output can be pasted."""
    lines: list[str] = []
    for project in catalogue.projects.values():
        lines.append(f"# project {project.id}  {project.title}")
        lines.extend(
            f"#   workflow {workflow.id}  {workflow.name}: {_terms(workflow)}"
            for workflow in catalogue.workflows.values()
            if project.id in workflow.project_ids
        )
    if len(lines) > _MOST_LISTED:
        return [*lines[:_MOST_LISTED], f"# and {len(lines) - _MOST_LISTED} more"]
    return lines


def _terms(workflow: Workflow) -> str:
    return f"{workflow.cost} tokens, {workflow.duration} s{', fails half-way' if workflow.fails else ''}"


def _log(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads stderr any more: no reason to stop serving
        console.info(line)
