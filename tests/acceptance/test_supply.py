"""What the project is made of and with: locked by hashes, licensed as the page says, and built of what is named.

`tox -e package` builds twice and compares the bytes (check_package.py); `tox -e sbom` checks what it makes by itself.
"""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from configparser import ConfigParser

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support import locks
from support.pages import CHECKOUT, Page

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
GROUPS = PROJECT["dependency-groups"]
LOCKS = ("dev.txt", "package.txt", "runtime.txt")
LICENCES = Page("docs/licences.md")
SECURITY = Page("SECURITY.md")
# How releases that are older than `License-Expression` name theirs.
OLD_NAMES = {"MIT License": "MIT", "BSD License": "BSD-3-Clause"}


def group(name: str) -> Iterator[Requirement]:
    """What a dependency group asks for, with the groups that it includes."""
    for entry in GROUPS[name]:
        if isinstance(entry, str):
            yield Requirement(entry)
        else:
            yield from group(entry["include-group"])


def asked(*groups: str, project: bool) -> Iterator[tuple[Requirement, str]]:
    """What pyproject.toml asks for, and where, in the words of the lock."""
    if project:
        yield from (
            (Requirement(entry), "pixxel-runner (pyproject.toml)") for entry in PROJECT["project"]["dependencies"]
        )
    for name in groups:
        yield from ((requirement, f"pixxel-runner (pyproject.toml:{name})") for requirement in group(name))


ASKED = {
    "dev.txt": list(asked(*GROUPS, project=True)),
    "package.txt": list(asked("package", project=False)),
    "runtime.txt": list(asked(project=True)),
}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_what_pyproject_asks_for_within_its_bounds(name: str) -> None:
    pins = locks.read(name)
    for requirement, where in ASKED[name]:
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin.version, prereleases=True), f"{pin.requirement} for {where}"
        assert where in pin.via, f"{requirement} of {where} is not locked for it: tox -e lock"


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_nothing_that_nobody_asks_for(name: str) -> None:
    pins = locks.read(name)
    wanted = {(canonicalize_name(requirement.name), where) for requirement, where in ASKED[name]}
    for pin in pins.values():
        whom = pin.via - {"-c requirements/dev.txt"}
        assert whom, pin
        for where in whom:
            assert where in pins or (pin.name, where) in wanted, f"{pin.requirement} is for {where}: tox -e lock"


@pytest.mark.parametrize("name", LOCKS)
def test_each_pin_is_held_by_hashes_and_names_no_place(name: str) -> None:
    """An address would be that of an index, and a path that of a machine: the hashes say which file it is."""
    for pin in locks.read(name).values():
        assert pin.hashes, pin
        assert pin.requirement.url is None
    assert not re.search(r"://|index|find-links|/(?!dev\.txt)", (locks.FOLDER / name).read_text(encoding="utf-8"))


def test_the_locks_agree() -> None:
    everything = locks.read("dev.txt")
    for name in LOCKS:
        for pin in locks.read(name).values():
            assert (pin.version, pin.hashes) == (everything[pin.name].version, everything[pin.name].hashes)


def test_the_backend_is_the_one_that_is_locked() -> None:
    assert set(PROJECT["build-system"]["requires"]) <= set(GROUPS["package"])


def licence(name: str) -> str:
    """As SPDX has it, from the metadata of what is installed."""
    told = importlib.metadata.metadata(name)
    if "License-Expression" in told:
        return told["License-Expression"]
    old = [value.rpartition(" :: ")[2] for value in told.get_all("Classifier", []) if value.startswith("License")]
    return OLD_NAMES[old[0]]


def test_the_page_has_the_licence_of_all_that_is_installed_with_the_program() -> None:
    rows = dict(re.findall(r"^\| ([a-z][\w-]*) \| ([\w.-]+) \|", LICENCES.text, re.MULTILINE))
    del rows["package"]  # the title
    pins = locks.read("runtime.txt")
    assert set(rows) == set(pins)
    for name, pin in pins.items():
        if pin.applies:
            assert rows[name] == licence(name), name


def test_the_project_has_the_licence_that_its_metadata_names() -> None:
    project = PROJECT["project"]
    text = "".join((CHECKOUT / name).read_text(encoding="utf-8") for name in project["license-files"])
    assert project["license"] == "Apache-2.0"
    assert re.match(r"\s*Apache License\s+Version 2\.0, January 2004\s", text)
    assert "Copyright 2026 pixxel-runner contributors\n" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_every_address_of_the_project_is_the_one_that_the_docs_use() -> None:
    [repository] = re.findall(r"- repo: (https://\S+)", Page("docs/pre-commit.md").text)
    assert {url.removeprefix(repository)[:1] for url in PROJECT["project"]["urls"].values()} <= {"", "/"}


def test_the_classifiers_name_each_python_that_tox_has() -> None:
    """From the oldest that is allowed to the newest that is tested."""
    named = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["project"]["classifiers"]), re.MULTILINE)
    tox = ConfigParser(interpolation=None)
    tox.read(CHECKOUT / "tox.ini")
    tested = sorted(re.findall(r"py3(\d+)", tox["testenv:whole"]["base_python"]), key=int)
    assert named == [f"3.{minor}" for minor in tested]
    assert PROJECT["project"]["requires-python"] == f">={named[0]}"


@pytest.mark.parametrize("page", [SECURITY, LICENCES], ids=["SECURITY", "licences"])
def test_the_commands_are_those_of_tox(page: Page) -> None:
    tox = ConfigParser(interpolation=None)
    tox.read(CHECKOUT / "tox.ini")
    named = re.findall(r"tox -e ([\w-]+)", page.text)
    assert named
    for name in named:
        assert tox.has_section(f"testenv:{name}"), name
