"""CONTRIBUTING.md is true: the files, groups, environments and layers that it names are there."""

from __future__ import annotations

import re
import shlex
import tomllib
from configparser import ConfigParser
from itertools import pairwise

from support.pages import CHECKOUT, Page

PAGE = Page("CONTRIBUTING.md")
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
TOX = ConfigParser(interpolation=None)
TOX.read(CHECKOUT / "tox.ini")


def commands(marker: str) -> list[list[str]]:
    lines = PAGE.block(marker).splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def test_the_files_that_it_names_are_there() -> None:
    named = {
        *re.findall(r"\b((?:tests|docs|bench|runner)/[\w./-]*)", PAGE.text),
        *re.findall(r"\]\((\S+?)\)", PAGE.text),
    }
    assert named
    assert [name for name in named if not (CHECKOUT / name).exists()] == []


def test_the_groups_that_it_installs_have_what_its_commands_need() -> None:
    install = commands("set up")[-1]
    assert install[:3] == ["pip", "install", "--editable"]
    groups = [group for option, group in pairwise(install) if option == "--group"]
    needed = " ".join(str(PROJECT["dependency-groups"][group]) for group in groups)
    for package in ("pytest", "xdist", "ruff", "mypy", "import-linter"):
        assert package in needed


def test_the_environments_that_it_names_are_there() -> None:
    named = set(re.findall(r"tox -e (\w+)", PAGE.text))
    assert {"random", "campaign", "fuzz", "bench", "load", "lock"} <= named
    assert [name for name in named if not name.startswith("py3") and not any(name in one for one in TOX)] == []
    assert set(re.findall(r"py3\d+", PAGE.text)) <= {f"py3{minor}" for minor in re.findall(r"3\.(\d+)", str(PROJECT))}


def test_its_layers_are_those_of_the_contract() -> None:
    [shown] = re.findall(r"^    (cli .*)$", PAGE.text, re.MULTILINE)
    layers = next(contract["layers"] for contract in PROJECT["tool"]["importlinter"]["contracts"])
    assert shown.split(" → ") == layers
