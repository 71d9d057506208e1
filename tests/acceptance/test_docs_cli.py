"""docs/cli.md is true: help texts are the program's, and tables name all that it reads and exits with."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest
from support import help_pages
from support.pages import Page
from support.shell import Shell

import runner
from runner.core.exit_codes import Exit, worst_exit

PAGE = Page("docs/cli.md")
COMMANDS = dict(help_pages.commands())
SOURCES = [ast.parse(file.read_bytes(), str(file)) for file in Path(next(iter(runner.__path__))).rglob("*.py")]

# What these functions of libraries read. An environment that is passed on to a program is not searched here.
LIBRARIES = {
    "getproxies": {"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"},
    "proxy_bypass": {"NO_PROXY"},
    "create_default_context": {"SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"},
    "get_terminal_size": {"COLUMNS"},
    "getuser": {"LOGNAME", "USER", "LNAME", "USERNAME"},
    "ZoneInfo": {"PYTHONTZPATH"},
    "run": {"PATH", "GIT_*"},  # subprocess.run: of git
}
ENVIRONMENTS = {"environ", "environment"}


def section(title: str) -> str:
    return re.split(r"^#+ ", PAGE.text.partition(f" {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def rows(title: str) -> Iterator[tuple[list[str], list[str]]]:
    """The variables that a row of a table is about, and the other cells."""
    for line in section(title).splitlines():
        first, *rest = [cell.strip() for cell in line.strip("|").split("|")]
        if first.startswith("`"):
            yield re.findall(r"`([^`]+)`", first), rest


TABLES = ("Options", "Other variables of the program", "Variables of Python and the system")
DOCUMENTED = {title: {name: rest for names, rest in rows(title) for name in names} for title in TABLES}


# Help.


@pytest.mark.parametrize("name", COMMANDS, ids=lambda name: name or "pixxel-runner")
def test_help_is_the_programs(name: str) -> None:
    assert PAGE.block(f"help: {name}") == help_pages.help_of(name), "PYTHONPATH=tests python -m support.help_pages"


def test_the_page_has_no_command_that_the_program_has_not() -> None:
    assert re.findall(r"<!-- help: (.*?) -->", PAGE.text) == list(COMMANDS)


def test_help_that_has_changed_is_written_anew() -> None:
    text = re.sub(r"(?<=```text\n).*?(?=```)", "Usage: stale\n", PAGE.text, flags=re.DOTALL)
    assert text != PAGE.text
    assert help_pages.update_help(text) == PAGE.text
    assert help_pages.missing_commands(PAGE.text) == []
    assert help_pages.missing_commands(PAGE.text.replace("<!-- help: ledger init -->", "")) == ["ledger init"]


# Exit codes.


def test_each_exit_code_is_there() -> None:
    codes = re.findall(r"^\| (\d+) \|", section("Exit codes"), re.MULTILINE)
    assert list(map(int, codes)) == sorted(Exit)


@pytest.mark.parametrize("code", Exit)
def test_the_page_gives_each_exit_code_the_meaning_that_the_program_gives(code: Exit) -> None:
    [meaning] = re.findall(rf"^\| {code} \| (.+?) \|", section("Exit codes"), re.MULTILINE)
    assert meaning.replace("`", "").startswith(code.meaning)


def test_of_several_exit_codes_the_page_says_which_counts() -> None:
    [told] = re.findall(r"the exit code is the first of ([\d, ]+)", section("Exit codes"))
    order = [Exit(int(code)) for code in told.split(",")]
    assert set(order) == set(Exit)
    for strong, weak in pairwise(order):
        assert worst_exit((weak, strong)) is strong


# Environment variables.


def options() -> dict[str, list[click.Option]]:
    """The options that each variable is for."""
    found: dict[str, list[click.Option]] = {}
    for command in COMMANDS.values():
        for parameter in command.params:
            if isinstance(parameter, click.Option) and isinstance(parameter.envvar, str):
                found.setdefault(parameter.envvar, []).append(parameter)
    return found


def test_each_variable_of_an_option_is_there_with_its_commands() -> None:
    found = {
        f"`{parameter.envvar}` | `{parameter.opts[0]}` of {', '.join(sorted(names))}"
        for parameter, names in (
            (each[0], [name for name, command in COMMANDS.items() if any(one in command.params for one in each)])
            for each in options().values()
        )
    }
    told = {f"`{name}` | {cells[0]}" for name, cells in DOCUMENTED["Options"].items()}
    assert told == found


@pytest.mark.parametrize("variable", DOCUMENTED["Options"])
def test_the_default_is_that_of_the_help(variable: str) -> None:
    told = DOCUMENTED["Options"][variable][2].replace("`", "")
    for option in options()[variable]:
        with click.Context(click.Command("any")) as context:
            record = option.get_help_record(context)
        assert record is not None
        shown = re.search(r"\[default: ([^];]*)", record[1])
        expected = shown[1] if shown else ""
        assert told in (expected, SAID_IN_FULL.get(expected, "")), record


# In the help there is no room for it.
SAID_IN_FULL = {
    "": "those of the system",
    "MANIFEST's stem + .results.json, here": "the manifest's stem and .results.json, in the current directory",
}


def constants(tree: ast.Module) -> dict[str, str]:
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def is_environment(node: ast.expr) -> bool:
    return (isinstance(node, ast.Name) and node.id in ENVIRONMENTS) or (
        isinstance(node, ast.Attribute) and node.attr in ENVIRONMENTS
    )


def reads(tree: ast.Module) -> Iterator[ast.expr]:
    """What stands where the name of a variable does, as in `os.environ.get(HERE)` and `os.environ[HERE]`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and is_environment(node.value):
            yield node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "get" and is_environment(node.func.value):
                yield node.args[0]
            assert node.func.attr != "getenv"


def test_each_variable_that_the_code_reads_is_there() -> None:
    found: set[str] = set()
    for tree in SOURCES:
        named = constants(tree)
        for name in reads(tree):
            match name:
                case ast.Constant(value=str(variable)):
                    found.add(variable)
                case ast.Name(id="variable"):  # one of those of the options, which it is called with
                    continue
                case ast.Name(id=constant):
                    found.add(named[constant])
                case _:
                    pytest.fail(ast.dump(name))
    own = set(DOCUMENTED["Other variables of the program"])
    assert found <= own
    assert own - found == LIBRARIES["get_terminal_size"]


def test_each_variable_that_libraries_read_is_there() -> None:
    called = {
        node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        for tree in SOURCES
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)
    }
    assert set(LIBRARIES) <= called
    assert set().union(*LIBRARIES.values()) == {*DOCUMENTED["Variables of Python and the system"], "COLUMNS"}


@pytest.mark.parametrize("variable", DOCUMENTED["Options"])
def test_the_page_says_which_variables_may_not_be_empty(tmp_path: Path, variable: str) -> None:
    """Those that may be end where a run without a key does."""
    refused = section("Environment variables").partition("are refused")[2]
    shell = Shell(tmp_path, {variable: ""})
    shell.manifest(("j", "w", "p"))
    done = shell.call("run", "nightly.yaml")
    if f"`{variable}`" in refused:
        assert (done.code, f"{variable} is set to an empty string" in done.err) == (Exit.USAGE, True)
    else:
        assert (done.code, "no API key" in done.err) == (Exit.REFUSED, True)
