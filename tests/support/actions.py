"""Runs a composite action as GitHub's runner does: `if:` conditions, bash scripts, file commands and a cache.

It supports the parts of the expression language that the action uses: contexts, string literals, `==`, `!=`, `&&`,
`||`, `!`, brackets and the status functions. As on GitHub, a step whose `if:` has no status function is skipped after
a failure, its `env:` overrides the outer environment, and only its own process gets a signal.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_TOKEN = re.compile(r"\s*(?:(?P<word>[A-Za-z_][\w.-]*)|(?P<text>'[^']*')|(?P<sign>==|!=|&&|\|\||[!()]))")
_SHELL = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]
_STATUS = ("always", "success", "failure", "cancelled")


class Expression:
    """A `${{ expression }}`, evaluated with values by dotted name; missing values are empty."""

    def __init__(self, text: str, values: Mapping[str, str], *, failed: bool, cancelled: bool = False) -> None:
        self._tokens = list(self._split(text))
        self._values = values
        self._functions = {
            "always": True,
            "success": not failed and not cancelled,
            "failure": failed,
            "cancelled": cancelled,
        }

    @staticmethod
    def _split(text: str) -> Iterator[str]:
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            assert found is not None, f"unexpected text in an expression: {text[at:]!r}"
            at = found.end()
            yield found[0].strip()

    def value(self) -> str | bool:
        result = self._parse_or()
        assert not self._tokens, f"unparsed rest of an expression: {self._tokens}"
        return result

    def _parse_or(self) -> str | bool:
        result = self._parse_and()
        while self._take("||"):
            other = self._parse_and()
            result = result or other
        return result

    def _parse_and(self) -> str | bool:
        result = self._parse_comparison()
        while self._take("&&"):
            other = self._parse_comparison()
            result = other if result else result
        return result

    def _parse_comparison(self) -> str | bool:
        result = self._parse_operand()
        while self._tokens[:1] in (["=="], ["!="]):
            same = self._tokens.pop(0) == "=="
            result = (str(result) == str(self._parse_operand())) is same
        return result

    def _parse_operand(self) -> str | bool:
        token = self._tokens.pop(0)
        if token == "!":
            return not self._parse_operand()
        if token == "(":
            result = self._parse_or()
            assert self._take(")")
            return result
        if token.startswith("'"):
            return token[1:-1]
        if self._take("("):
            assert self._take(")")
            return self._functions[token]
        assert "." in token, f"no such context: {token}"
        return self._values.get(token, "")

    def _take(self, token: str) -> bool:
        if self._tokens[:1] != [token]:
            return False
        self._tokens.pop(0)
        return True


@dataclass
class Cache:
    """A fake of `actions/cache`: directories under keys that are written once, newest last.

    `accepts`: whether a key can be saved; like the real cache, saving only warns if not.
    """

    directory: Path
    accepts: Callable[[str], bool] = lambda _: True
    keys: list[str] = field(default_factory=list)

    def save(self, key: str, path: Path) -> None:
        if not self.accepts(key) or key in self.keys or not path.exists():
            return
        shutil.copytree(path, self.directory / str(len(self.keys)))
        self.keys.append(key)

    def find(self, key: str, prefixes: list[str]) -> str | None:
        """The key itself, else the newest key that starts with it, else the newest match of a prefix, in order."""
        if key in self.keys:
            return key
        for prefix in (key, *prefixes):
            found = [kept for kept in self.keys if kept.startswith(prefix)]
            if found:
                return found[-1]
        return None

    def restore(self, key: str, path: Path) -> None:
        shutil.copytree(self.directory / str(self.keys.index(key)), path, dirs_exist_ok=True)


@dataclass(frozen=True)
class ActionResult:
    """The result of an action: the outcome of each step (by id or name), its outputs, and its log."""

    outcomes: Mapping[str, str]
    outputs: Mapping[str, str]
    log: str
    summary: str

    @property
    def ok(self) -> bool:
        return "failure" not in self.outcomes.values()


@dataclass
class Runner:
    """A runner for an action: a workspace, a temporary directory, and a cache.

    Args:
        action: the directory of the `action.yml`.
        workspace: the checkout, and the working directory of scripts.
        temporary: `RUNNER_TEMP`.
        cache: the cache shared by all uses.
        step_outputs: outputs of steps (by id) that are not run.
        environment: the environment of the step that uses the action.
    """

    action: Path
    workspace: Path
    temporary: Path
    cache: Cache
    step_outputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    uses: int = 0
    attempt: int = 1

    def use(
        self,
        inputs: Mapping[str, str],
        *,
        event: str = "push",
        ref: str = "refs/heads/main",
        watch: Callable[[str, subprocess.Popen[str]], str] = lambda _name, _process: "",
    ) -> ActionResult:
        """Run the action. `watch` gets the step and process of each running script; it returns the output it read."""
        self.uses += 1
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir()
        action = yaml.safe_load((self.action / "action.yml").read_text(encoding="utf-8"))
        run = _ActionRun(self, {"GITHUB_EVENT_NAME": event, "GITHUB_REF": ref}, watch)
        run.values["github.event.repository.default_branch"] = "" if event == "schedule" else "main"
        for name, given in action["inputs"].items():
            assert name in inputs or not given.get("required"), f"the input {name} is required"
            run.values[f"inputs.{name}"] = inputs.get(name, given.get("default", ""))
        assert set(inputs) <= set(action["inputs"])
        for step in action["runs"]["steps"]:
            run.step(step)
        outputs = {name: run.render(output["value"]) for name, output in action["outputs"].items()}
        return ActionResult(run.outcomes, outputs, "".join(run.log), run.summary())


class _ActionRun:
    """The state of one use of the action."""

    def __init__(
        self, runner: Runner, given: Mapping[str, str], watch: Callable[[str, subprocess.Popen[str]], str]
    ) -> None:
        self._runner = runner
        self._watch = watch
        self._files = runner.temporary / "_runner_file_commands"
        self._files.mkdir()
        self._given = {
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(runner.action),
            "GITHUB_RUN_ID": str(4710 + runner.uses),
            "GITHUB_RUN_ATTEMPT": str(runner.attempt),
            "GITHUB_WORKSPACE": str(runner.workspace),
            "RUNNER_TEMP": str(runner.temporary),
            **given,
        }
        self.values: dict[str, str] = {}
        self.outcomes: dict[str, str] = {}
        self.log: list[str] = []

    def summary(self) -> str:
        return "".join(file.read_text(encoding="utf-8") for file in sorted(self._files.glob("*.summary")))

    def render(self, text: str) -> str:
        return re.sub(r"\$\{\{(.*?)\}\}", lambda found: str(self._expression(found[1]).value()), text)

    def _expression(self, text: str) -> Expression:
        return Expression(text, self.values, failed="failure" in self.outcomes.values())

    def step(self, step: Mapping[str, Any]) -> None:
        name = step.get("id") or step["name"]
        condition = step.get("if", "success()")
        if not any(f"{function}()" in condition for function in _STATUS):
            condition = f"success() && ({condition})"
        if not self._expression(condition).value():
            self.outcomes[name] = "skipped"
            return
        self.log.append(f"##[group]{step['name']}\n")
        if name in self._runner.step_outputs:
            outputs, code = dict(self._runner.step_outputs[name]), 0
        elif "uses" in step:
            outputs, code = self._uses(step), 0
        else:
            outputs, code = self._run(name, step)
        self.outcomes[name] = "failure" if code else "success"
        self.values |= {f"steps.{name}.outputs.{output}": value for output, value in outputs.items()}

    def _uses(self, step: Mapping[str, Any]) -> dict[str, str]:
        given = {name: self.render(str(value)) for name, value in step["with"].items()}
        path = self._runner.workspace / given["path"]
        cache = self._runner.cache
        if step["uses"].startswith("actions/cache/save@"):
            cache.save(given["key"], path)
            return {}
        assert step["uses"].startswith("actions/cache/restore@")
        found = cache.find(given["key"], given.get("restore-keys", "").split())
        if found is None:
            return {}
        if given.get("lookup-only") != "True":
            cache.restore(found, path)
        return {"cache-matched-key": found, "cache-hit": str(found == given["key"]).lower()}

    def _run(self, name: str, step: Mapping[str, Any]) -> tuple[dict[str, str], int]:
        assert step["shell"] == "bash"
        script = self._runner.temporary / f"{name}.sh"
        script.write_text(step["run"], encoding="utf-8")
        files = {
            "GITHUB_OUTPUT": self._files / f"{name}.output",
            "GITHUB_STEP_SUMMARY": self._files / f"{len(self.outcomes):02}.summary",
        }
        for file in files.values():
            file.touch()
        with subprocess.Popen(
            [*_SHELL, script],
            cwd=self._runner.workspace,
            env={
                **{
                    kept: os.environ[kept] for kept in ("PATH", "HOME", "COVERAGE_PROCESS_CONFIG") if kept in os.environ
                },
                **self._given,
                **{variable: str(file) for variable, file in files.items()},
                **self._runner.environment,
                **{variable: self.render(str(value)) for variable, value in step.get("env", {}).items()},
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        ) as process:
            try:
                self.log.append(self._watch(name, process))
                assert process.stdout is not None
                self.log.append(process.stdout.read())  # communicate() would lose what `watch` has buffered
                process.wait(60)
            finally:
                process.kill()
        lines = files["GITHUB_OUTPUT"].read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines), process.returncode


def run_script(lines: Sequence[str], directory: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Run the lines of a GitLab job as one shell script, as its runner does. Returns the exit code and output."""
    with subprocess.Popen(
        [*_SHELL, "-c", "\n".join(lines)],
        cwd=directory,
        env={**_inherited(), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as process:
        try:
            output = process.communicate(timeout=60)[0]
        finally:
            process.kill()
    return process.returncode, output


def _inherited() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "COVERAGE_PROCESS_CONFIG") if name in os.environ}
