"""docs/cli.md: help texts, exit codes and environment variables match the program."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
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

# Variables read by library functions. Environments passed to other programs are not included.
LIBRARY_VARIABLES = {
    "getproxies": {"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"},
    "proxy_bypass": {"NO_PROXY"},
    "create_default_context": {"SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"},
    "get_terminal_size": {"COLUMNS"},
    "getuser": {"LOGNAME", "USER", "LNAME", "USERNAME"},
    "ZoneInfo": {"PYTHONTZPATH"},
    "run": {"PATH", "GIT_*"},  # subprocess.run of git
}
ENVIRONMENT_NAMES = {"environ", "environment"}


@cache
def parse_sources() -> list[ast.Module]:
    return [ast.parse(file.read_bytes(), str(file)) for file in Path(next(iter(runner.__path__))).rglob("*.py")]


def section(title: str) -> str:
    return re.split(r"^#+ ", PAGE.text.partition(f" {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def table_rows(title: str) -> Iterator[tuple[list[str], list[str]]]:
    """The variables in the first cell of each table row, and its other cells."""
    for line in section(title).splitlines():
        first_cell, *other_cells = [cell.strip() for cell in line.strip("|").split("|")]
        if first_cell.startswith("`"):
            yield re.findall(r"`([^`]+)`", first_cell), other_cells


TABLES = ("Options", "Other variables of the program", "Variables of Python and the system")
DOCUMENTED = {title: {name: rest for names, rest in table_rows(title) for name in names} for title in TABLES}


# Help


@pytest.mark.parametrize("name", COMMANDS, ids=lambda name: name or "pixxel-runner")
def test_help_matches_the_program(name: str) -> None:
    assert PAGE.block(f"help: {name}") == help_pages.help_of(name), "PYTHONPATH=tests python -m support.help_pages"


def test_page_lists_exactly_the_commands_of_the_program() -> None:
    assert re.findall(r"<!-- help: (.*?) -->", PAGE.text) == list(COMMANDS)


def test_outdated_help_is_updated() -> None:
    text = re.sub(r"(?<=```text\n).*?(?=```)", "Usage: stale\n", PAGE.text, flags=re.DOTALL)
    assert text != PAGE.text
    assert help_pages.update_help(text) == PAGE.text
    assert help_pages.missing_commands(PAGE.text) == []
    assert help_pages.missing_commands(PAGE.text.replace("<!-- help: ledger init -->", "")) == ["ledger init"]


# Exit codes


def test_every_exit_code_is_documented() -> None:
    codes = re.findall(r"^\| (\d+) \|", section("Exit codes"), re.MULTILINE)
    assert list(map(int, codes)) == sorted(Exit)


@pytest.mark.parametrize("code", Exit)
def test_exit_code_meanings_match_the_program(code: Exit) -> None:
    [meaning] = re.findall(rf"^\| {code} \| (.+?) \|", section("Exit codes"), re.MULTILINE)
    assert meaning.replace("`", "").startswith(code.meaning)


def test_exit_code_precedence_matches_the_program() -> None:
    [codes] = re.findall(r"the exit code is the first of ([\d, ]+)", section("Exit codes"))
    order = [Exit(int(code)) for code in codes.split(",")]
    assert set(order) == set(Exit)
    for strong, weak in pairwise(order):
        assert worst_exit((weak, strong)) is strong


# Environment variables


def options_by_variable() -> dict[str, list[click.Option]]:
    """The options set by each variable."""
    options: dict[str, list[click.Option]] = {}
    for command in COMMANDS.values():
        for parameter in command.params:
            if isinstance(parameter, click.Option) and isinstance(parameter.envvar, str):
                options.setdefault(parameter.envvar, []).append(parameter)
    return options


def test_every_option_variable_is_documented_with_its_commands() -> None:
    expected = {
        f"`{parameter.envvar}` | `{parameter.opts[0]}` of {', '.join(sorted(names))}"
        for parameter, names in (
            (
                options[0],
                [name for name, command in COMMANDS.items() if any(option in command.params for option in options)],
            )
            for options in options_by_variable().values()
        )
    }
    documented = {f"`{name}` | {cells[0]}" for name, cells in DOCUMENTED["Options"].items()}
    assert documented == expected


@pytest.mark.parametrize("variable", DOCUMENTED["Options"])
def test_defaults_match_the_help(variable: str) -> None:
    documented = DOCUMENTED["Options"][variable][2].replace("`", "")
    for option in options_by_variable()[variable]:
        with click.Context(click.Command("any")) as context:
            record = option.get_help_record(context)
        assert record is not None
        match = re.search(r"\[default: ([^];]*)", record[1])
        expected = match[1] if match else ""
        assert documented in (expected, FULL_DEFAULTS.get(expected, "")), record


# Defaults abbreviated in the help, in full.
FULL_DEFAULTS = {
    "": "those of the system",
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
    return (isinstance(node, ast.Name) and node.id in ENVIRONMENT_NAMES) or (
        isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT_NAMES
    )


def environment_reads(tree: ast.Module) -> Iterator[ast.expr]:
    """The expressions that name a variable, as in `os.environ.get(NAME)` and `os.environ[NAME]`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and is_environment(node.value):
            yield node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "get" and is_environment(node.func.value):
                yield node.args[0]
            assert node.func.attr != "getenv"


def test_every_variable_read_by_the_code_is_documented() -> None:
    variables: set[str] = set()
    for tree in parse_sources():
        constant_values = constants(tree)
        for name in environment_reads(tree):
            match name:
                case ast.Constant(value=str(variable)):
                    variables.add(variable)
                case ast.Name(id="variable"):  # a parameter: the variable of an option
                    continue
                case ast.Name(id=constant):
                    variables.add(constant_values[constant])
                case _:
                    pytest.fail(ast.dump(name))
    documented = set(DOCUMENTED["Other variables of the program"])
    assert variables <= documented
    assert documented - variables == LIBRARY_VARIABLES["get_terminal_size"]


def test_every_variable_read_by_libraries_is_documented() -> None:
    called = {
        node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        for tree in parse_sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)
    }
    assert set(LIBRARY_VARIABLES) <= called
    assert set().union(*LIBRARY_VARIABLES.values()) == {*DOCUMENTED["Variables of Python and the system"], "COLUMNS"}


@pytest.mark.parametrize("variable", DOCUMENTED["Options"])
def test_page_lists_variables_that_must_not_be_empty(tmp_path: Path, variable: str) -> None:
    """With any other variable empty, the run gets as far as the missing key."""
    refused_text = section("Environment variables").partition("are refused")[2]
    shell = Shell(tmp_path, {variable: ""})
    shell.manifest(("j", "w", "p"))
    completed = shell.call("run", "nightly.yaml")
    if f"`{variable}`" in refused_text:
        assert (completed.code, f"{variable} is set to an empty string" in completed.err) == (Exit.USAGE, True)
    else:
        assert (completed.code, "no API key" in completed.err) == (Exit.REFUSED, True)
