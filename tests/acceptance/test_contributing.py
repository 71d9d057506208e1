"""CONTRIBUTING.md: the files, dependency groups, environments and layers it names exist."""

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
    return [arguments for line in lines if (arguments := shlex.split(line, comments=True))]


def test_cited_files_exist() -> None:
    paths = {
        *re.findall(r"\b((?:tests|docs|bench|runner)/[\w./-]*)", PAGE.text),
        *re.findall(r"\]\((\S+?)\)", PAGE.text),
    }
    assert paths
    assert [path for path in paths if not (CHECKOUT / path).exists()] == []


def test_installed_groups_include_the_tools_used() -> None:
    install = commands("set up")[-1]
    assert install[:3] == ["pip", "install", "--editable"]
    groups = [group for option, group in pairwise(install) if option == "--group"]
    requirements = " ".join(str(PROJECT["dependency-groups"][group]) for group in groups)
    for package in ("pytest", "xdist", "ruff", "mypy", "import-linter"):
        assert package in requirements


def test_cited_tox_environments_exist() -> None:
    environments = set(re.findall(r"tox -e (\w+)", PAGE.text))
    assert {"random", "campaign", "fuzz", "bench", "load", "lock"} <= environments
    assert [
        name for name in environments if not name.startswith("py3") and not any(name in section for section in TOX)
    ] == []
    assert set(re.findall(r"py3\d+", PAGE.text)) <= {f"py3{minor}" for minor in re.findall(r"3\.(\d+)", str(PROJECT))}


def test_layers_match_the_import_contract() -> None:
    [documented] = re.findall(r"^    (cli .*)$", PAGE.text, re.MULTILINE)
    layers = next(contract["layers"] for contract in PROJECT["tool"]["importlinter"]["contracts"])
    assert documented.split(" → ") == layers
