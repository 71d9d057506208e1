"""Completion: the candidates at each position, and in real shells on a terminal, with keys typed and Tab pressed."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from support import ledger_history
from support.pages import Page
from support.shell import Shell
from support.terminal import open_terminal, read_terminal, terminal_environment

from runner.cli.commands import completion
from runner.cli.main import cli
from runner.ledger.connect import create_ledger
from runner.ledger.store import Ledger

PAGE = Page("docs/terminal.md")
PROGRAM = Path(sys.executable).with_name("pixxel-runner")
MANIFEST = """\
version: 1
name: nightly
once_per: day
timezone: UTC
jobs:
  - {name: field-a, workflow_id: w-1, project_id: p-1}
  - {name: field-b, workflow_id: w-2, project_id: p-1}
  - {name: coast south, workflow_id: w-3, project_id: p-1}
  - {name: "agri:north", workflow_id: w-4, project_id: p-1}
  - {name: "it's $HOME", workflow_id: w-5, project_id: p-1}
"""
RUNS = ("20261020T010000Z-aaaaaa", "20261021T010000Z-bbbbbb")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path, {"PATH": f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)})
    shell.write("nightly.yaml", MANIFEST)
    return shell


def write_runs(shell: Shell) -> None:
    """Create a ledger with two runs."""
    shell.ledger.parent.mkdir()
    create_ledger(shell.ledger)
    with Ledger(shell.ledger) as ledger:
        for run_id in RUNS:
            ledger_history.start_run(
                ledger, run_id, [ledger_history.job("field-a")], path=str(shell.directory / "nightly.yaml")
            )


def complete(shell: Shell, name: str, *words: str, index: int | None = None) -> list[str]:
    """The program's output to a shell that completes the last of these words: type and value of each candidate."""
    separator = "\n" if name == "bash" else " "
    line = separator.join(["pixxel-runner", *words])
    number = words[-1] if name == "fish" else str(len(words) if index is None else index)
    variables = {"COMP_WORDS": line, "COMP_CWORD": number}
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        redirect_stdout(io.TextIOWrapper(io.BytesIO())) as out,
        redirect_stderr(out),
    ):
        monkeypatch.chdir(shell.directory)
        for variable, value in {**terminal_environment(shell), **variables}.items():
            monkeypatch.setenv(variable, value)
        completion.complete(cli, "pixxel-runner", f"{name}_complete")
    out.seek(0)
    return [line for line in out.read().splitlines() if line]


def bash_candidates(shell: Shell, *words: str) -> list[str]:
    """What bash inserts: its script reads each line with `read`, which removes backslashes."""
    return [re.sub(r"\\(.)", r"\1", line.partition(",")[2]) for line in complete(shell, "bash", *words)]


# Candidates at each position


def test_commands_and_options(shell: Shell) -> None:
    assert bash_candidates(shell, "r") == ["run", "resolve", "runs"]
    assert bash_candidates(shell, "--v") == ["--version"]
    assert bash_candidates(shell, "run", "nightly.yaml", "--res") == ["--results", "--resume"]
    assert bash_candidates(shell, "ledger", "ch") == ["check"]
    assert bash_candidates(shell, "validate", "--format", "") == ["text", "json", "github"]
    assert bash_candidates(shell, "completion", "") == ["bash", "zsh", "fish"]


def test_command_names_need_no_import_of_a_command(shell: Shell) -> None:
    env = {
        **terminal_environment(shell),
        "COMP_WORDS": "pixxel-runner\nr",
        "COMP_CWORD": "1",
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    env["_PIXXEL_RUNNER_COMPLETE"] = "bash_complete"
    env.pop("COVERAGE_PROCESS_CONFIG", None)  # coverage's imports do not count
    done = subprocess.run([PROGRAM], cwd=shell.directory, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["plain,run", "plain,resolve", "plain,runs"]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "runner.cli.commands.completion" in imported
    assert not imported & {
        "runner.cli.commands.run",
        "runner.manifest.loader",
        "jsonschema",
        "urllib3",
        "sqlite3",
        "yaml",
        "tabulate",
    }


@pytest.mark.parametrize("option", ["--only", "--again"])
@pytest.mark.parametrize("command", ["run", "plan"])
def test_job_names_come_from_the_manifest_on_the_line(shell: Shell, command: str, option: str) -> None:
    assert bash_candidates(shell, command, "nightly.yaml", option, "field") == ["field-a", "field-b"]
    assert bash_candidates(shell, command, "nightly.yaml", option, "field-a", option, "field-b") == ["field-b"]
    assert bash_candidates(shell, command, "--all", "nightly.yaml", option, "=", "fi") == ["field-a", "field-b"]
    assert bash_candidates(shell, command, option, "") == []


def test_directory_completes_the_jobs_of_all_its_manifests(shell: Shell) -> None:
    shell.write("jobs/a.yaml", MANIFEST)
    shell.write("jobs/b.yaml", MANIFEST.replace("field", "wood").replace("nightly", "weekly"))
    shell.write("jobs/c.yml", MANIFEST.replace("field", "hill"))
    assert bash_candidates(shell, "run", "jobs", "--only", "")[0:2] == ["field-a", "field-b"]
    assert "wood-a" in bash_candidates(shell, "run", "jobs", "--only", "")
    assert bash_candidates(shell, "run", "jobs", "--only", "hill") == []


@pytest.mark.parametrize("text", ["", "jobs: [", "version: 1\njobs: []\n", "\x00", "a: &a [*a]\n", "version: 2\n"])
def test_invalid_manifest_has_no_candidates_and_no_output(shell: Shell, text: str) -> None:
    shell.write("nightly.yaml", text)
    assert bash_candidates(shell, "run", "nightly.yaml", "--only", "") == []


@pytest.mark.parametrize("path", ["-", "gone.yaml", "/dev/stdin", "pipe"])
def test_only_regular_files_are_read(shell: Shell, path: str) -> None:
    os.mkfifo(shell.directory / "pipe")
    assert bash_candidates(shell, "run", path, "--only", "") == []


def test_run_ids_come_from_the_ledger(shell: Shell) -> None:
    assert bash_candidates(shell, "show", "") == ["last"]
    assert complete(shell, "bash", "status", "20") == ["file,20"]
    assert not shell.ledger.parent.exists()  # completion does not create it
    write_runs(shell)
    before = shell.ledger.read_bytes()
    assert bash_candidates(shell, "show", "") == ["last", *reversed(RUNS)]
    assert bash_candidates(shell, "show", "20261020") == [RUNS[0]]
    assert complete(shell, "bash", "status", "20261021") == ["file,20261021", f"plain,{RUNS[1]}"]
    assert bash_candidates(shell, "resolve", "--run", "") == [*reversed(RUNS)]
    assert f"{RUNS[1]}\nnightly, completed" in "\n".join(complete(shell, "zsh", "show", "20"))
    assert shell.ledger.read_bytes() == before
    shell.ledger.write_text("not a ledger", encoding="utf-8")
    assert bash_candidates(shell, "show", "") == ["last"]


def test_ledger_option_and_variable_are_used(shell: Shell) -> None:
    write_runs(shell)
    shell.ledger.parent.rename(shell.directory / "elsewhere")
    assert bash_candidates(shell, "show", "20") == []
    assert bash_candidates(shell, "show", "--ledger", "elsewhere/ledger.db", "20") == [*reversed(RUNS)]
    shell.environment["PIXXEL_RUNNER_LEDGER"] = "elsewhere/ledger.db"
    assert bash_candidates(shell, "show", "20") == [*reversed(RUNS)]


def test_jobs_in_doubt_come_from_the_ledger(shell: Shell) -> None:
    shell.ledger.parent.mkdir()
    create_ledger(shell.ledger)
    jobs = [
        ledger_history.job(name, f"w-{number}") for number, name in enumerate(("field-a", "field-b", "coast south"))
    ]
    with Ledger(shell.ledger) as ledger:
        run = ledger_history.start_run(ledger, RUNS[0], jobs, path=str(shell.directory / "nightly.yaml"))
        ledger_history.send(ledger, run, jobs[0], ledger_history.in_doubt("job-1", "job-2", "job\n3"))
        ledger_history.send(ledger, run, jobs[1], ledger_history.created("job-4"))
        ledger_history.send(ledger, run, jobs[2], ledger_history.in_doubt())
    assert bash_candidates(shell, "resolve", "nightly.yaml", "--absent", "") == ["field-a", "coast\\ south"]
    assert bash_candidates(shell, "resolve", "--absent", "fi") == ["field-a"]
    assert bash_candidates(shell, "resolve", "--adopt", "fi") == ["field-a=job-1", "field-a=job-2"]
    assert bash_candidates(shell, "resolve", "--adopt", "field-a", "=") == ["job-1", "job-2"]
    assert bash_candidates(shell, "resolve", "--adopt", "=", "field-a", "=", "job-2") == ["job-2"]


@pytest.mark.parametrize(
    ("words", "inserted"),
    [
        (("--only", "co"), ["coast\\ south"]),
        (("--only", "'co"), ["coast south"]),
        (("--only", "it"), ["it\\'s\\ \\$HOME"]),
        (("--only", "agri"), ["agri:north"]),
        (("--only", "agri", ":"), ["north"]),
        (("--only", "agri", ":", "no"), ["north"]),
        (("--only", "=", "agri", ":", "no"), ["north"]),
        (("--only", "="), ["field-a", "field-b", "coast\\ south", "agri:north", "it\\'s\\ \\$HOME"]),
    ],
)
def test_bash_candidates_are_quoted_as_one_word(shell: Shell, words: tuple[str, ...], inserted: list[str]) -> None:
    assert bash_candidates(shell, "run", "nightly.yaml", *words) == inserted


def test_names_with_control_characters_are_not_candidates(shell: Shell) -> None:
    shell.write("nightly.yaml", MANIFEST.replace("field-b", "field-\u200bb"))
    assert bash_candidates(shell, "run", "nightly.yaml", "--only", "field") in (["field-a"], [])


def test_names_that_the_fish_script_would_truncate_are_not_candidates(shell: Shell) -> None:
    shell.write("nightly.yaml", MANIFEST.replace("field-b", '"field,b"'))
    assert complete(shell, "fish", "run", "nightly.yaml", "--only", "field") == ["plain,field-a"]


@pytest.mark.parametrize("instruction", ["tcsh_complete", "bash_nothing", "zsh_complete"])
def test_unknown_completion_instruction_prints_nothing(shell: Shell, instruction: str) -> None:
    env = {**terminal_environment(shell), "_PIXXEL_RUNNER_COMPLETE": instruction}
    done = subprocess.run([PROGRAM], cwd=shell.directory, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_command_prints_the_same_as_click(shell: Shell, name: str) -> None:
    env = {**terminal_environment(shell), "_PIXXEL_RUNNER_COMPLETE": f"{name}_source"}
    source = subprocess.run([PROGRAM], env=env, capture_output=True, text=True, check=True).stdout
    printed = subprocess.run(
        [PROGRAM, "completion", name], env=terminal_environment(shell), capture_output=True, text=True, check=True
    ).stdout
    assert printed == source
    assert f"_PIXXEL_RUNNER_COMPLETE={name}_complete" in printed


# On a terminal


@contextmanager
def interactive_shell(shell: Shell, name: str, *options: str) -> Iterator[Callable[[str, str], str]]:
    """An interactive shell. Yields a function that types keys and returns the output up to a text."""
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    env = {**terminal_environment(shell), "PS1": "> ", "PROMPT": "> ", "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    with open_terminal([program, *options], shell.directory, env, size=(200, 40)) as (process, tty):

        def type_keys(keys: str, until: str) -> str:
            os.write(tty, keys.encode())
            return read_terminal(tty, until)

        yield type_keys
        process.kill()


def install(shell: Shell, name: str) -> None:
    """Run the page's instructions for a shell."""
    commands = PAGE.block(name)
    subprocess.run(["bash", "-e", "-c", commands], cwd=shell.directory, env=terminal_environment(shell), check=True)  # noqa: S607 - found on PATH


def bash_is_new_enough() -> bool:
    """Whether bash has the version that the page requires. macOS has 3.2."""
    script = "(( BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404 ))"
    return subprocess.run(["bash", "-c", script], check=False).returncode == 0  # noqa: S607 - found on PATH


@pytest.mark.skipif(not bash_is_new_enough(), reason="needs bash 4.4 or later")
def test_completion_in_bash(shell: Shell) -> None:
    install(shell, "bash")
    with interactive_shell(shell, "bash", "--norc", "--noprofile", "-i") as type_keys:
        # The package bash-completion does this on the first use of a command.
        type_keys("source ~/.local/share/bash-completion/completions/pixxel-runner; PS1='% '\n", "% ")
        assert type_keys("pixxel-runner pl\t", "plan ")
        assert type_keys("nigh\t", "nightly.yaml ")
        assert type_keys("--only=coa\t", "--only=coast\\ south ")
        assert type_keys("--only agri:n\t", "agri:north ")
        assert type_keys("--form\t", "--format")
        assert type_keys(" mark\t", "markdown ")


def test_completion_in_zsh(shell: Shell) -> None:
    install(shell, "zsh")
    with interactive_shell(shell, "zsh", "-f", "-i") as type_keys:
        type_keys(
            "fpath=(~/.zfunc $fpath); autoload -Uz compinit; compinit -u -D; PROMPT='%% '; print rea''dy\n", "ready"
        )
        assert type_keys("pixxel-runner pl\t", "plan")  # zsh writes more than one character for the space
        assert type_keys("nigh\t", "nightly.yaml")
        assert type_keys("--only coa\t", "coast\\ south")
        assert type_keys("--only agri\t", "agri:north")
        assert type_keys("--format mark\t", "markdown")


def test_completion_in_fish(shell: Shell) -> None:
    install(shell, "fish")
    program = shutil.which("fish")
    if program is None:
        pytest.skip("fish is not installed")

    def fish_candidates(line: str) -> list[str]:
        words = [program, "-c", "complete -C $argv[1]", line]
        done = subprocess.run(
            words, cwd=shell.directory, env=terminal_environment(shell), capture_output=True, text=True, check=True
        )
        return [candidate.partition("\t")[0] for candidate in done.stdout.splitlines()]

    assert fish_candidates("pixxel-runner pl") == ["plan"]
    assert fish_candidates("pixxel-runner run nigh") == ["nightly.yaml"]
    assert fish_candidates("pixxel-runner run nightly.yaml --only field") == ["field-a", "field-b"]
    assert fish_candidates("pixxel-runner run nightly.yaml --only coa") == ["coast south"]
    assert fish_candidates("pixxel-runner run nightly.yaml --format mark") == ["markdown"]
    write_runs(shell)
    assert fish_candidates("pixxel-runner show 2026") == [*RUNS]  # fish sorts
