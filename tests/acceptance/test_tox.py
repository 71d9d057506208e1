"""Which Pythons the test command finds."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

TOXFILE = Path(__file__).parents[2] / "toxfile.py"


@pytest.mark.parametrize("root", ["set", "home"])
def test_pythons_of_pyenv_are_found_the_newest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    for version in ("2.7.18", "3.10.13", "3.11.7", "3.11.12", "3.13.0", "3.13.0t", "pypy3.11-7.3.19", "3.12.1"):
        name = f"python{'.'.join(version.split('.')[:2])}"
        executable = tmp_path / ".pyenv" / "versions" / version / "bin" / name
        executable.parent.mkdir(parents=True)
        executable.touch()
    (tmp_path / ".pyenv" / "versions" / "3.14.2" / "bin").mkdir(parents=True)  # not whole
    monkeypatch.setenv("HOME", str(tmp_path if root == "home" else tmp_path / "elsewhere"))
    monkeypatch.setenv("PYENV_ROOT", "" if root == "home" else str(tmp_path / ".pyenv"))

    state = SimpleNamespace(conf=SimpleNamespace(options=SimpleNamespace(discover=["/given/python"])))
    runpy.run_path(str(TOXFILE))["tox_add_core_config"](state)
    given, *found = state.conf.options.discover
    assert given == "/given/python"
    assert [Path(path).parts[-3] for path in found] == ["3.13.0", "3.12.1", "3.11.12", "3.11.7"]
    assert [Path(path).name for path in found] == ["python3.13", "python3.12", "python3.11", "python3.11"]
