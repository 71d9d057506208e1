"""Completion in real shells: a person types on a terminal and presses Tab. And what is offered at each place."""

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
from support import past
from support.pages import Page
from support.shell import Shell
from support.terminal import environment, opened, seen

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
    one = Shell(tmp_path, {"PATH": f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)})
    one.write("nightly.yaml", MANIFEST)
    return one


def with_runs(shell: Shell) -> None:
    """A ledger that has two runs."""
    shell.ledger.parent.mkdir()
    create_ledger(shell.ledger)
    with Ledger(shell.ledger) as ledger:
        for run_id in RUNS:
            past.begin(ledger, run_id, [past.job("field-a")], path=str(shell.folder / "nightly.yaml"))


def asked(shell: Shell, name: str, *words: str, at: int | None = None) -> list[str]:
    """What the program answers a shell that completes the last of these words: type and value of each."""
    separator = "\n" if name == "bash" else " "
    line = separator.join(["pixxel-runner", *words])
    number = words[-1] if name == "fish" else str(len(words) if at is None else at)
    variables = {"COMP_WORDS": line, "COMP_CWORD": number}
    with (
        pytest.MonkeyPatch.context() as here,
        redirect_stdout(io.TextIOWrapper(io.BytesIO())) as out,
        redirect_stderr(out),
    ):
        here.chdir(shell.folder)
        for variable, value in {**environment(shell), **variables}.items():
            here.setenv(variable, value)
        completion.complete(cli, "pixxel-runner", f"{name}_complete")
    out.seek(0)
    return [line for line in out.read().splitlines() if line]


def offered(shell: Shell, *words: str) -> list[str]:
    """What bash inserts: its script reads each answer with `read`, which takes backslashes for itself."""
    return [re.sub(r"\\(.)", r"\1", line.partition(",")[2]) for line in asked(shell, "bash", *words)]


# What is offered at each place.


def test_commands_and_their_options(shell: Shell) -> None:
    assert offered(shell, "r") == ["run", "resolve", "runs"]
    assert offered(shell, "--v") == ["--version"]
    assert offered(shell, "run", "nightly.yaml", "--res") == ["--results", "--resume"]
    assert offered(shell, "ledger", "ch") == ["check"]
    assert offered(shell, "validate", "--format", "") == ["text", "json", "github"]
    assert offered(shell, "completion", "") == ["bash", "zsh", "fish"]


def test_names_of_commands_are_answered_without_importing_one(shell: Shell) -> None:
    env = {**environment(shell), "COMP_WORDS": "pixxel-runner\nr", "COMP_CWORD": "1", "PYTHONPROFILEIMPORTTIME": "1"}
    env["_PIXXEL_RUNNER_COMPLETE"] = "bash_complete"
    env.pop("COVERAGE_PROCESS_CONFIG", None)  # what coverage imports is nothing of the program's
    done = subprocess.run([PROGRAM], cwd=shell.folder, env=env, capture_output=True, text=True, check=True)
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
def test_names_of_jobs_come_from_the_manifest_on_the_line(shell: Shell, command: str, option: str) -> None:
    assert offered(shell, command, "nightly.yaml", option, "field") == ["field-a", "field-b"]
    assert offered(shell, command, "nightly.yaml", option, "field-a", option, "field-b") == ["field-b"]
    assert offered(shell, command, "--all", "nightly.yaml", option, "=", "fi") == ["field-a", "field-b"]
    assert offered(shell, command, option, "") == []


def test_a_folder_of_manifests_has_the_jobs_of_all(shell: Shell) -> None:
    shell.write("jobs/a.yaml", MANIFEST)
    shell.write("jobs/b.yaml", MANIFEST.replace("field", "wood").replace("nightly", "weekly"))
    shell.write("jobs/c.yml", MANIFEST.replace("field", "hill"))
    assert offered(shell, "run", "jobs", "--only", "")[0:2] == ["field-a", "field-b"]
    assert "wood-a" in offered(shell, "run", "jobs", "--only", "")
    assert offered(shell, "run", "jobs", "--only", "hill") == []


@pytest.mark.parametrize("text", ["", "jobs: [", "version: 1\njobs: []\n", "\x00", "a: &a [*a]\n", "version: 2\n"])
def test_a_broken_manifest_offers_nothing_and_says_nothing(shell: Shell, text: str) -> None:
    shell.write("nightly.yaml", text)
    assert offered(shell, "run", "nightly.yaml", "--only", "") == []


@pytest.mark.parametrize("path", ["-", "gone.yaml", "/dev/stdin", "pipe"])
def test_what_is_no_file_is_not_read(shell: Shell, path: str) -> None:
    os.mkfifo(shell.folder / "pipe")
    assert offered(shell, "run", path, "--only", "") == []


def test_runs_come_from_the_ledger(shell: Shell) -> None:
    assert offered(shell, "show", "") == ["last"]
    assert asked(shell, "bash", "status", "20") == ["file,20"]
    assert not shell.ledger.parent.exists()  # to ask makes none
    with_runs(shell)
    before = shell.ledger.read_bytes()
    assert offered(shell, "show", "") == ["last", *reversed(RUNS)]
    assert offered(shell, "show", "20261020") == [RUNS[0]]
    assert asked(shell, "bash", "status", "20261021") == ["file,20261021", f"plain,{RUNS[1]}"]
    assert offered(shell, "resolve", "--run", "") == [*reversed(RUNS)]
    assert f"{RUNS[1]}\nnightly, completed" in "\n".join(asked(shell, "zsh", "show", "20"))
    assert shell.ledger.read_bytes() == before
    shell.ledger.write_text("no ledger", encoding="utf-8")
    assert offered(shell, "show", "") == ["last"]


def test_the_ledger_that_is_named_is_the_one_that_is_read(shell: Shell) -> None:
    with_runs(shell)
    shell.ledger.parent.rename(shell.folder / "elsewhere")
    assert offered(shell, "show", "20") == []
    assert offered(shell, "show", "--ledger", "elsewhere/ledger.db", "20") == [*reversed(RUNS)]
    shell.environment["PIXXEL_RUNNER_LEDGER"] = "elsewhere/ledger.db"
    assert offered(shell, "show", "20") == [*reversed(RUNS)]


def test_jobs_in_doubt_come_from_the_ledger(shell: Shell) -> None:
    shell.ledger.parent.mkdir()
    create_ledger(shell.ledger)
    jobs = [past.job(name, f"w-{number}") for number, name in enumerate(("field-a", "field-b", "coast south"))]
    with Ledger(shell.ledger) as ledger:
        run = past.begin(ledger, RUNS[0], jobs, path=str(shell.folder / "nightly.yaml"))
        past.send(ledger, run, jobs[0], past.lost("job-1", "job-2", "job\n3"))
        past.send(ledger, run, jobs[1], past.made("job-4"))
        past.send(ledger, run, jobs[2], past.lost())
    assert offered(shell, "resolve", "nightly.yaml", "--absent", "") == ["field-a", "coast\\ south"]
    assert offered(shell, "resolve", "--absent", "fi") == ["field-a"]
    assert offered(shell, "resolve", "--adopt", "fi") == ["field-a=job-1", "field-a=job-2"]
    assert offered(shell, "resolve", "--adopt", "field-a", "=") == ["job-1", "job-2"]
    assert offered(shell, "resolve", "--adopt", "=", "field-a", "=", "job-2") == ["job-2"]


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
def test_bash_is_given_what_it_reads_as_one_word(shell: Shell, words: tuple[str, ...], inserted: list[str]) -> None:
    assert offered(shell, "run", "nightly.yaml", *words) == inserted


def test_what_a_terminal_would_act_on_is_not_offered(shell: Shell) -> None:
    shell.write("nightly.yaml", MANIFEST.replace("field-b", "field-\u200bb"))
    assert offered(shell, "run", "nightly.yaml", "--only", "field") in (["field-a"], [])


def test_fish_is_not_given_what_its_script_would_cut(shell: Shell) -> None:
    shell.write("nightly.yaml", MANIFEST.replace("field-b", '"field,b"'))
    assert asked(shell, "fish", "run", "nightly.yaml", "--only", "field") == ["plain,field-a"]


@pytest.mark.parametrize("instruction", ["tcsh_complete", "bash_nothing", "zsh_complete"])
def test_nothing_is_said_to_what_asks_in_another_way(shell: Shell, instruction: str) -> None:
    env = {**environment(shell), "_PIXXEL_RUNNER_COMPLETE": instruction}
    done = subprocess.run([PROGRAM], cwd=shell.folder, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_the_command_prints_what_click_s_own_way_prints(shell: Shell, name: str) -> None:
    env = {**environment(shell), "_PIXXEL_RUNNER_COMPLETE": f"{name}_source"}
    source = subprocess.run([PROGRAM], env=env, capture_output=True, text=True, check=True).stdout
    printed = subprocess.run(
        [PROGRAM, "completion", name], env=environment(shell), capture_output=True, text=True, check=True
    ).stdout
    assert printed == source
    assert f"_PIXXEL_RUNNER_COMPLETE={name}_complete" in printed


# On a terminal.


@contextmanager
def sitting(shell: Shell, name: str, *options: str) -> Iterator[Callable[[str, str], str]]:
    """A person at a shell that has the completion as the page says: what is typed, and what stands there then."""
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"there is no {name} here")
    env = {**environment(shell), "PS1": "> ", "PROMPT": "> ", "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    with opened([program, *options], shell.folder, env, size=(200, 40)) as (process, person):

        def types(keys: str, until: str) -> str:
            os.write(person, keys.encode())
            return seen(person, until)

        yield types
        process.kill()


def install(shell: Shell, name: str) -> None:
    """Do what the page says for a shell."""
    commands = PAGE.block(name)
    subprocess.run(["bash", "-e", "-c", commands], cwd=shell.folder, env=environment(shell), check=True)  # noqa: S607 - wherever it is


def bash_is_new_enough() -> bool:
    """Whether it is of the version that the page says; macOS has 3.2."""
    script = "(( BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404 ))"
    return subprocess.run(["bash", "-c", script], check=False).returncode == 0  # noqa: S607 - wherever it is


@pytest.mark.skipif(not bash_is_new_enough(), reason="there is no bash 4.4 or later here")
def test_in_bash(shell: Shell) -> None:
    install(shell, "bash")
    with sitting(shell, "bash", "--norc", "--noprofile", "-i") as types:
        # What the package bash-completion does by itself for the name of a command.
        types("source ~/.local/share/bash-completion/completions/pixxel-runner; PS1='% '\n", "% ")
        assert types("pixxel-runner pl\t", "plan ")
        assert types("nigh\t", "nightly.yaml ")
        assert types("--only=coa\t", "--only=coast\\ south ")
        assert types("--only agri:n\t", "agri:north ")
        assert types("--form\t", "--format")
        assert types(" mark\t", "markdown ")


def test_in_zsh(shell: Shell) -> None:
    install(shell, "zsh")
    with sitting(shell, "zsh", "-f", "-i") as types:
        types("fpath=(~/.zfunc $fpath); autoload -Uz compinit; compinit -u -D; PROMPT='%% '; print rea''dy\n", "ready")
        assert types("pixxel-runner pl\t", "plan")  # and a space, of which zsh makes more than a character
        assert types("nigh\t", "nightly.yaml")
        assert types("--only coa\t", "coast\\ south")
        assert types("--only agri\t", "agri:north")
        assert types("--format mark\t", "markdown")


def test_in_fish(shell: Shell) -> None:
    install(shell, "fish")
    program = shutil.which("fish")
    if program is None:
        pytest.skip("there is no fish here")

    def completed(line: str) -> list[str]:
        words = [program, "-c", "complete -C $argv[1]", line]
        done = subprocess.run(
            words, cwd=shell.folder, env=environment(shell), capture_output=True, text=True, check=True
        )
        return [one.partition("\t")[0] for one in done.stdout.splitlines()]

    assert completed("pixxel-runner pl") == ["plan"]
    assert completed("pixxel-runner run nigh") == ["nightly.yaml"]
    assert completed("pixxel-runner run nightly.yaml --only field") == ["field-a", "field-b"]
    assert completed("pixxel-runner run nightly.yaml --only coa") == ["coast south"]
    assert completed("pixxel-runner run nightly.yaml --format mark") == ["markdown"]
    with_runs(shell)
    assert completed("pixxel-runner show 2026") == [*RUNS]  # fish sorts
