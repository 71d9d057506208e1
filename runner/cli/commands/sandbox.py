"""The command `sandbox`: serves the API on loopback until it is stopped."""

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
from runner.sandbox.backend import Backend
from runner.sandbox.catalog import Catalog, Workflow
from runner.sandbox.faults import Fault, check_shares, parse_fault
from runner.sandbox.server import Sandbox
from runner.sandbox.store import JobFile

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_MAX_LISTED = 20


@click.command("sandbox")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="The port on 127.0.0.1 to listen on; 0 means any free one.  [default: 0]",
)
@click.option(
    "--key",
    default="sandbox-key",
    show_default=True,
    metavar="KEY",
    help="The API key to accept. Do not use a real one: it is printed.",
)
@click.option(
    "--fault",
    "fault_texts",
    multiple=True,
    metavar="KIND=SHARE",
    help="Make a share of the POSTs fail. KIND is rate-limit[:SECONDS], bad-gateway, reset, slow[:SECONDS] or failure "
    "(the job fails halfway, in addition to any other fault); SHARE is a number from 0 to 1, or a percentage. "
    "Can be repeated.",
)
@click.option(
    "--seed", type=int, metavar="N", help="Seed of the faults: the same seed gives the same ones.  [default: random]"
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    metavar="DIR-or-FILE",
    help="Keep the jobs across restarts: in DIR/jobs.jsonl, or in FILE if it ends in .jsonl.  [default: not kept]",
)
@click.option(
    "--manifest",
    "manifests",
    multiple=True,
    metavar="FILE",
    help="Add the workflows and projects of a manifest (- for standard input). Can be repeated.",
)
@click.option("--verbose", is_flag=True, help="Log the method, path and status of each request.")
def command(
    port: int,
    key: str,
    fault_texts: tuple[str, ...],
    seed: int | None,
    state: Path | None,
    manifests: tuple[str, ...],
    verbose: bool,
) -> Exit:
    """Serve the Pixxel API on loopback, for trials and for testing with faults. Its jobs cost nothing.

    It prints the environment variables to export, lists its workflows as comments, and runs until Ctrl-C or SIGTERM.
    """
    _check_key(key)
    faults = check_shares(parse_fault(text) for text in fault_texts)
    seed = secrets.randbelow(2**32) if seed is None else seed
    pairs = _load_pairs(manifests)
    with _stop_signals_blocked(), Backend(store=JobFile(state) if state else None) as backend:
        backend.add_pairs(pairs)
        log = console.info if verbose else None
        with Sandbox(backend, key=key, faults=faults, seed=seed, port=port, log=log) as sandbox:
            _greet(sandbox, key, faults, seed)
            signal.sigwait(_STOP_SIGNALS)
        console.info(f"{backend.created} {'job was' if backend.created == 1 else 'jobs were'} created")
    return Exit.OK


def _check_key(key: str) -> None:
    if not key or not key.isascii() or not key.isprintable() or key != key.strip():
        raise UsageError("--key cannot be sent in a header", "Use printable ASCII without spaces at the ends.")


def _load_pairs(manifests: Iterable[str]) -> list[tuple[str, str]]:
    if not manifests:
        return []
    from runner.manifest import loader  # noqa: PLC0415 - YAML and JSON Schema are slow to import

    return [job.pair for path in manifests for job in loader.load(path, console.stdin()).jobs]


@contextlib.contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """Block the signals that stop the sandbox until it waits for them, so that none interrupts a step.

    Threads that are started within inherit this, so that only the main thread receives the signals.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _greet(sandbox: Sandbox, key: str, faults: Sequence[Fault], seed: int) -> None:
    """Print the faults, and the commands to paste. The sandbox is listening already."""
    if faults:
        shares = ", ".join(f"{fault.kind} {fault.share:.4g}" for fault in faults)
        console.info(f"faults: {shares}; to repeat them: --seed {seed}")
    console.info("serving; press Ctrl-C to stop")
    exports = [f"export PIXXEL_BASE_URL={sandbox.base_url}", f"export PIXXEL_API_KEY={shlex.quote(key)}"]
    console.output("\n".join([*exports, "", *_list_workflows(sandbox.backend.catalog)]))


def _list_workflows(catalog: Catalog) -> list[str]:
    """The workflows by project, as shell comments, so that the whole output can be pasted."""
    lines: list[str] = []
    for project in catalog.projects.values():
        lines.append(f"# project {project.id}  {project.title}")
        lines.extend(
            f"#   workflow {workflow.id}  {workflow.name}: {_describe(workflow)}"
            for workflow in catalog.workflows.values()
            if project.id in workflow.project_ids
        )
    if len(lines) > _MAX_LISTED:
        return [*lines[:_MAX_LISTED], f"# and {len(lines) - _MAX_LISTED} more"]
    return lines


def _describe(workflow: Workflow) -> str:
    return f"{workflow.cost} tokens, {workflow.duration} s{', fails halfway' if workflow.fails else ''}"
