"""docs/containers.md and docs/kubernetes.md are accurate: linters and schemas accept the files, and commands work."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.pages import CHECKOUT, Page
from support.schemas import check_results
from support.shell import KEY, CompletedCommand, environment_without_coverage, set_noon_timezone
from support.wire import Request, Script, Stall, WireServer, created

from runner.core.version import VERSION
from runner.manifest import loader

CONTAINERS = Page("docs/containers.md")
PAGE = Page("docs/kubernetes.md")
DIRECTORY = CHECKOUT / "docs" / "kubernetes"
DOCKERFILE = (CHECKOUT / "Dockerfile").read_text("utf-8")
WITH_PODS = ("cronjob.yaml", "ledger.yaml", "by-hand.yaml")
USER = 10001


def instructions(name: str) -> list[str]:
    """The arguments of each such instruction in the Dockerfile, with continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", DOCKERFILE)
    return re.findall(rf"^{name} (.*)$", joined, re.MULTILINE)


# The image


def test_dockerfile_passes_hadolint() -> None:
    program = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run(
        [program, "--failure-threshold", "style", CHECKOUT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_files_copied_into_the_image_exist_and_are_not_ignored() -> None:
    sources = [Path(source) for line in instructions("COPY") if "--from" not in line for source in line.split()[:-1]]
    ignored = (CHECKOUT / ".dockerignore").read_text("utf-8").splitlines()
    assert next(line for line in ignored if line and line[0] != "#") == "*"
    for source in sources:
        assert (CHECKOUT / source).exists()
        assert f"!{source}" in ignored
    assert sum(line.startswith("!") for line in ignored) == len(sources)
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    for pattern in project["tool"]["hatch"]["build"]["include"]:
        assert any(Path(pattern.removeprefix("/")).is_relative_to(source) for source in sources), pattern
    assert Path(project["project"]["readme"]) in sources
    versions = [line.removeprefix("PYTHON=") for line in instructions("ARG")]
    assert [
        f"Programming Language :: Python :: {version}" in project["project"]["classifiers"] for version in versions
    ] == [True]


def test_ledgers_and_results_stay_out_of_the_image() -> None:
    ignored = (CHECKOUT / ".dockerignore").read_text("utf-8").splitlines()
    for path in ("runner/.pixxel-runner", "runner/jobs.results.json", "runner/__pycache__"):
        assert any(
            fnmatch.fnmatchcase(f"/{path}", rule.replace("**", "*")) for rule in ignored if rule[:1] == "*" != rule
        )


def test_image_runs_the_program_itself_as_a_fixed_user() -> None:
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["pixxel-runner"]
    assert instructions("USER") == [f"{USER}:{USER}"]
    assert f"--owner={USER} --group={USER} --mode=0700 /data" in DOCKERFILE


def test_page_mounts_what_the_image_expects() -> None:
    assert "PIXXEL_RUNNER_LEDGER=/data/ledger.db" in instructions("ENV")[0]
    assert instructions("WORKDIR")[-1] == "/data"
    words = shlex.split(CONTAINERS.block("run").replace("\\\n", " "))
    assert "--volume pixxel-ledger:/data" in " ".join(words)
    assert words[words.index("pixxel-runner") + 1 :] == ["run", "/manifests/nightly.yaml"]
    assert "pixxel-runner ledger init /data/ledger.db" in CONTAINERS.block("once")


SANDBOXED = """
set -e
mount --make-rprivate /
mount --bind "$DATA" "$DATA"
mount -t proc proc /proc
awk '{print $5}' /proc/self/mountinfo | while read -r place; do
  case "$place" in
    "$DATA") ;;
    *) mount -o remount,bind,ro "$place" 2>/dev/null || case "$place" in /proc*|/sys*|/dev*) ;; *) exit 9;; esac;;
  esac
done
cd "$DATA"
exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all -- "$@"
"""


class Container:
    """Like a container with a read-only root: no capabilities, process 1, and only /data can be written."""

    def __init__(self, data: Path) -> None:
        if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None:
            pytest.skip("needs root, unshare and setpriv to drop privileges")
        self.data = data
        self.data.mkdir(mode=0o700)
        done = self(["sh", "-c", "echo $$; touch /x /tmp/x /var/tmp/x /data/x; touch probe"])
        if "\n" not in done.out:
            pytest.skip(f"namespaces are not available: {done.err}")
        assert done.out == "1\n"
        assert done.code == 0
        assert not any(Path(directory, "x").exists() for directory in ("/", "/tmp", "/var/tmp"))  # noqa: S108 - checks that none was created
        (data / "probe").unlink()

    def __call__(self, command: list[str], **environment: str) -> CompletedCommand:
        with self.started(command, **environment) as process:
            out, err = process.communicate(timeout=60)
        return CompletedCommand(process.returncode, out, err)

    @contextmanager
    def started(self, command: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
        """Start `unshare`, whose only child is process 1 of the container. Both are killed at the end."""
        arguments = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", SANDBOXED, "sh", *command]
        with subprocess.Popen(
            arguments,
            env=environment_without_coverage() | {"DATA": str(self.data)} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def program(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-P", "-B", "-m", "runner", *map(str, arguments)]


def job_of_workflow(request: Request) -> Script:
    return created(f"job-of-{request.workflow}")


def test_program_writes_only_to_the_data_directory(tmp_path: Path) -> None:
    container = Container(tmp_path / "data")
    nightly = tmp_path / "nightly.yaml"
    nightly.write_text(set_noon_timezone((DIRECTORY / "nightly.yaml").read_text("utf-8")), encoding="utf-8")
    with WireServer(choose=job_of_workflow) as server:
        environment = {
            "PIXXEL_BASE_URL": server.url,
            "PIXXEL_API_KEY": KEY,
            "PIXXEL_RUNNER_LEDGER": str(container.data / "ledger.db"),
        }
        unmounted = container(container.program("run", nightly), **environment)
        assert (unmounted.code, server.requests) == (4, [])  # as without its volume
        assert container(container.program("ledger", "init", container.data / "ledger.db")).code == 0
        for _ in range(2):
            assert container(container.program("run", nightly, "--quiet"), **environment) == CompletedCommand(0, "", "")
        assert len(server.created) == 2
    assert sorted(path.name for path in container.data.iterdir()) == [
        "ledger.db",
        "ledger.db.locks",
        "nightly.results.json",
    ]


def test_sigterm_to_process_1_stops_a_run_gracefully(tmp_path: Path) -> None:
    """The request in flight finishes. The other job is not sent, and its result is skipped."""
    container = Container(tmp_path / "data")
    ledger = container.data / "ledger.db"
    assert container(container.program("ledger", "init", ledger)).code == 0
    command = container.program(
        "run", DIRECTORY / "nightly.yaml", "--ledger", ledger, "--concurrency", "1", "--verbose"
    )
    gate = threading.Event()
    with WireServer(choose=lambda request: Stall(gate, job_of_workflow(request))) as server:
        with container.started(command, PIXXEL_BASE_URL=server.url, PIXXEL_API_KEY=KEY) as process:
            server.wait_for_requests(1)
            [process_1] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii").split()
            os.kill(int(process_1), signal.SIGTERM)
            assert process.stderr is not None
            while not process.stderr.readline().startswith("stopping: "):
                pass
            gate.set()
            process.communicate(timeout=30)
            assert process.returncode == 128 + signal.SIGTERM
        assert len(server.created) == 1
    summary = check_results(container.data / "nightly.results.json")["summary"]
    assert (summary["created"], summary["skipped"], summary["in_doubt"]) == (1, 1, 0)


# The cluster


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DIRECTORY / name).read_text("utf-8")))


def resource(name: str, kind: str) -> dict[str, Any]:
    [document] = [document for document in documents(name) if document["kind"] == kind]
    return document


def pod(name: str) -> dict[str, Any]:
    """The pod that a file's Job or CronJob starts."""
    [job] = [document for document in documents(name) if document["kind"] in ("Job", "CronJob")]
    spec = job["spec"]["jobTemplate"]["spec"] if job["kind"] == "CronJob" else job["spec"]
    assert spec["backoffLimit"] == 0
    return dict(spec["template"]["spec"])


def container_of(name: str) -> dict[str, Any]:
    [container] = pod(name)["containers"]
    return dict(container)


def test_page_names_each_file() -> None:
    assert {path.name for path in DIRECTORY.iterdir()} == set(re.findall(r"\(kubernetes/([\w.-]+)\)", PAGE.text))


@pytest.mark.parametrize("name", WITH_PODS)
def test_published_schemas_accept_the_resources(name: str) -> None:
    checker = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for document in documents(name):
        assert checker.validate(document, "1.29", strict=True) == "1.29"
        checker.validate(document, checker.latest_version(), strict=True)


def test_published_schemas_reject_an_unknown_field() -> None:
    checker = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    invalid = resource("cronjob.yaml", "CronJob")
    invalid["spec"]["timezone"] = invalid["spec"].pop("timeZone")
    with pytest.raises(checker.ValidationError):
        checker.validate(invalid, "1.29", strict=True)


def test_kustomization_builds_the_documented_resources() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run([kubectl, "kustomize", DIRECTORY], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    resources = {document["kind"]: document for document in yaml.safe_load_all(done.stdout)}
    assert set(resources) == {"ConfigMap", "CronJob"}
    assert resources["ConfigMap"]["data"] == {"nightly.yaml": (DIRECTORY / "nightly.yaml").read_text("utf-8")}
    spec = resources["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == container_of("ledger.yaml")["image"]
    assert resources["ConfigMap"]["metadata"]["name"] in [
        volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume
    ]
    assert {document["metadata"]["namespace"] for document in resources.values()} == {"pixxel"}


def test_files_are_consistent_with_each_other_and_the_image() -> None:
    [kustomization] = documents("kustomization.yaml")
    [image] = kustomization["images"]
    assert container_of("cronjob.yaml")["image"] == image["name"]
    for name in ("ledger.yaml", "by-hand.yaml"):
        assert container_of(name)["image"] == f"{image['newName']}:{image['newTag']}"
    assert image["newTag"] == VERSION
    claim = resource("ledger.yaml", "PersistentVolumeClaim")
    for name in WITH_PODS:
        assert volumes(name)["ledger"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert {document["metadata"].get("namespace", "pixxel") for document in documents(name)} == {"pixxel"}
        assert pod(name)["securityContext"]["runAsUser"] == USER
    secret = volumes("cronjob.yaml")["key"]["secret"]["secretName"]
    assert f"kubectl create secret generic {secret} --namespace pixxel --from-file=api-key=" in PAGE.block("once")
    for name in ("ledger.yaml", "by-hand.yaml"):
        assert any(f"--filename docs/kubernetes/{name}" in PAGE.block(block) for block in ("once", "by hand"))
    job = resource("cronjob.yaml", "CronJob")["metadata"]["name"]
    assert f"--from=cronjob/{job} " in PAGE.block("try it")
    assert f"job/{resource('ledger.yaml', 'Job')['metadata']['name']}\n" in PAGE.block("once")


@pytest.mark.parametrize("name", WITH_PODS)
def test_pods_have_minimal_privileges(name: str) -> None:
    """The Pod Security Standard `restricted`, and restrictions beyond it."""
    spec, container = pod(name), container_of(name)
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (spec["restartPolicy"], spec["automountServiceAccountToken"]) == ("Never", False)
    assert spec["enableServiceLinks"] is False  # a service named pixxel-runner would set PIXXEL_RUNNER_…
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]
    for mount in container["volumeMounts"]:
        assert mount["name"] == "ledger" or mount["readOnly"] is True
    assert volumes(name).get("key", {}).get("secret", {}).get("defaultMode", 0o440) == 0o440


def test_namespace_enforces_the_pods_restrictions() -> None:
    labels = resource("ledger.yaml", "Namespace")["metadata"]["labels"]
    assert labels == {"pod-security.kubernetes.io/enforce": "restricted"}
    assert resource("ledger.yaml", "PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_cron_job_starts_one_run_at_a_time_on_one_day_of_the_manifest() -> None:
    spec = resource("cronjob.yaml", "CronJob")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    minute, hours, *rest = spec["schedule"].split()
    first, last = (int(hour) for hour in hours.split("-"))
    assert 0 < first < last < 23
    assert rest == ["*", "*", "*"]
    nightly = loader.check((DIRECTORY / "nightly.yaml").read_bytes(), "nightly.yaml").manifest
    assert nightly is not None
    assert (nightly.once_per, str(nightly.timezone), nightly.has_explicit_name) == ("day", spec["timeZone"], True)
    hour = 3600
    assert int(minute) * 60 + spec["startingDeadlineSeconds"] < hour
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] < hour
    assert pod("cronjob.yaml")["terminationGracePeriodSeconds"] > 2 * 4  # twice the grace period, to save the results
    for setting in re.findall(r"^- `(\w+): (\w+)`", PAGE.text, re.MULTILINE):
        assert re.search(
            rf"^\s*{setting[0]}: {setting[1]}\b", (DIRECTORY / "cronjob.yaml").read_text("utf-8"), re.MULTILINE
        )


def volumes(name: str) -> dict[str, dict[str, Any]]:
    return {volume["name"]: volume for volume in pod(name)["volumes"]}


class Node:
    """A directory with each pod's volumes, in the kubelet's layout."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "data").mkdir()
        secret = directory / "run/secrets/pixxel"
        secret.mkdir(parents=True)
        (secret / "api-key").write_text(KEY, encoding="ascii")
        (secret / "api-key").chmod(0o400)
        if os.geteuid() == 0:  # owned by another user; the pod can read it through its group
            os.chown(secret / "api-key", USER, 0)
            (secret / "api-key").chmod(0o440)

    def project(self, version: str) -> None:
        """Write a version of the ConfigMap: links through a link, so that all files change atomically."""
        directory = self.directory / "manifests"
        shutil.rmtree(directory, ignore_errors=True)
        (directory / f"..{version}").mkdir(parents=True)
        (directory / "..data").symlink_to(f"..{version}")
        for name in ("nightly.yaml",):
            text = set_noon_timezone((DIRECTORY / name).read_text("utf-8"))
            (directory / f"..{version}" / name).write_text(text, encoding="utf-8")
            (directory / name).symlink_to(f"..data/{name}")

    def run(
        self, name: str, base_url: str = "http://127.0.0.1:9", *, replacements: Mapping[str, str] | None = None
    ) -> CompletedCommand:
        """Run a pod's container to its end, with some arguments replaced."""
        container = container_of(name)
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        words = [(replacements or {}).get(word, word) for word in container["args"]]
        arguments = [
            re.sub(rf"^(--[\w-]+=)?({'|'.join(mounts)})(?=/|$)", rf"\1{self.directory}\2", word) for word in words
        ]
        done = subprocess.run(
            [sys.executable, "-P", "-m", "runner", *arguments],
            cwd=self.directory / "data",
            env={"PATH": os.environ["PATH"], "PIXXEL_BASE_URL": base_url},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return CompletedCommand(done.returncode, done.stdout, done.stderr)


def test_pods_do_what_the_page_says(tmp_path: Path) -> None:
    """In the page's order, and with a ConfigMap that changes between two runs."""
    node = Node(tmp_path)
    with WireServer(choose=job_of_workflow) as server:
        node.project("2026_11_24_01_17_00.1")
        without_ledger = node.run("cronjob.yaml", server.url)
        assert (without_ledger.code, len(without_ledger.err.splitlines()), server.requests) == (4, 1, [])
        assert node.run("ledger.yaml").code == 0
        assert "already exists" in node.run("ledger.yaml").err
        assert node.run("cronjob.yaml", server.url) == CompletedCommand(0, "", "")
        node.project("2026_11_24_02_17_00.2")
        assert node.run("cronjob.yaml", server.url) == CompletedCommand(0, "", "")
        assert len(server.created) == len(server.requests) == 2
        several = dict(re.findall(r"`([^`]+)` becomes\s+`([^`]+)`", PAGE.text))
        assert set(several) <= set(container_of("cronjob.yaml")["args"])
        assert node.run("cronjob.yaml", server.url, replacements=several) == CompletedCommand(0, "", "")
        assert len(server.created) == 2
        assert node.run("by-hand.yaml", server.url).code == 0
    assert check_results(tmp_path / "data/nightly.results.json")["summary"]["created"] == 2
