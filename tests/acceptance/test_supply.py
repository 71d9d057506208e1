"""Dependencies and build tools are locked by hash, and the licenses are those on the page.

`tox -e package` builds twice and compares the bytes (check_package.py). `tox -e sbom` checks its own output.
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
LICENSES = Page("docs/licenses.md")
SECURITY = Page("SECURITY.md")
# License names in releases from before `License-Expression`.
SPDX_BY_CLASSIFIER = {"MIT License": "MIT", "BSD License": "BSD-3-Clause"}


def group(name: str) -> Iterator[Requirement]:
    """The requirements of a dependency group, including those of included groups."""
    for entry in GROUPS[name]:
        if isinstance(entry, str):
            yield Requirement(entry)
        else:
            yield from group(entry["include-group"])


def requirements(*groups: str, project: bool) -> Iterator[tuple[Requirement, str]]:
    """The requirements in pyproject.toml, each with its source as written in the lock."""
    if project:
        yield from (
            (Requirement(entry), "pixxel-runner (pyproject.toml)") for entry in PROJECT["project"]["dependencies"]
        )
    for name in groups:
        yield from ((requirement, f"pixxel-runner (pyproject.toml:{name})") for requirement in group(name))


REQUIREMENTS = {
    "dev.txt": list(requirements(*GROUPS, project=True)),
    "package.txt": list(requirements("package", project=False)),
    "runtime.txt": list(requirements(project=True)),
}


@pytest.mark.parametrize("name", LOCKS)
def test_lock_satisfies_the_requirements_of_pyproject(name: str) -> None:
    pins = locks.read(name)
    for requirement, source in REQUIREMENTS[name]:
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin.version, prereleases=True), f"{pin.requirement} for {source}"
        assert source in pin.via, f"{requirement} of {source} is not locked for it: tox -e lock"


@pytest.mark.parametrize("name", LOCKS)
def test_lock_contains_only_required_packages(name: str) -> None:
    pins = locks.read(name)
    required = {(canonicalize_name(requirement.name), source) for requirement, source in REQUIREMENTS[name]}
    for pin in pins.values():
        sources = pin.via - {"-c requirements/dev.txt"}
        assert sources, pin
        for source in sources:
            assert source in pins or (pin.name, source) in required, f"{pin.requirement} is for {source}: tox -e lock"


@pytest.mark.parametrize("name", LOCKS)
def test_pins_have_hashes_and_no_url_or_path(name: str) -> None:
    """Hashes identify the files. A URL would depend on an index, a path on a machine."""
    for pin in locks.read(name).values():
        assert pin.hashes, pin
        assert pin.requirement.url is None
    assert not re.search(r"://|index|find-links|/(?!dev\.txt)", (locks.DIRECTORY / name).read_text(encoding="utf-8"))


def test_locks_are_consistent() -> None:
    dev_pins = locks.read("dev.txt")
    for name in LOCKS:
        for pin in locks.read(name).values():
            assert (pin.version, pin.hashes) == (dev_pins[pin.name].version, dev_pins[pin.name].hashes)


def test_build_backend_is_locked() -> None:
    assert set(PROJECT["build-system"]["requires"]) <= set(GROUPS["package"])


def spdx_license(name: str) -> str:
    """The SPDX license of an installed package, from its metadata."""
    metadata = importlib.metadata.metadata(name)
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    classifiers = [
        value.rpartition(" :: ")[2] for value in metadata.get_all("Classifier", []) if value.startswith("License")
    ]
    return SPDX_BY_CLASSIFIER[classifiers[0]]


def test_page_has_the_license_of_every_runtime_dependency() -> None:
    rows = dict(re.findall(r"^\| ([a-z][\w-]*) \| ([\w.-]+) \|", LICENSES.text, re.MULTILINE))
    del rows["package"]  # the title
    pins = locks.read("runtime.txt")
    assert set(rows) == set(pins)
    for name, pin in pins.items():
        if pin.applies:
            assert rows[name] == spdx_license(name), name


def test_license_file_matches_the_metadata() -> None:
    project = PROJECT["project"]
    text = "".join((CHECKOUT / name).read_text(encoding="utf-8") for name in project["license-files"])
    assert project["license"] == "Apache-2.0"
    assert re.match(r"\s*Apache License\s+Version 2\.0, January 2004\s", text)
    assert "Copyright 2026 pixxel-runner contributors\n" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_project_urls_match_the_docs() -> None:
    [repository] = re.findall(r"- repo: (https://\S+)", Page("docs/pre-commit.md").text)
    assert {url.removeprefix(repository)[:1] for url in PROJECT["project"]["urls"].values()} <= {"", "/"}


def test_classifiers_match_the_python_versions_in_tox() -> None:
    """From the oldest supported version to the newest tested one."""
    versions = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["project"]["classifiers"]), re.MULTILINE)
    tox = ConfigParser(interpolation=None)
    tox.read(CHECKOUT / "tox.ini")
    tested = sorted(re.findall(r"py3(\d+)", tox["testenv:whole"]["base_python"]), key=int)
    assert versions == [f"3.{minor}" for minor in tested]
    assert PROJECT["project"]["requires-python"] == f">={versions[0]}"


@pytest.mark.parametrize("page", [SECURITY, LICENSES], ids=["SECURITY", "licenses"])
def test_tox_commands_on_pages_exist(page: Page) -> None:
    tox = ConfigParser(interpolation=None)
    tox.read(CHECKOUT / "tox.ini")
    environments = re.findall(r"tox -e ([\w-]+)", page.text)
    assert environments
    for name in environments:
        assert tox.has_section(f"testenv:{name}"), name
