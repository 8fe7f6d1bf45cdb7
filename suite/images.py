# SPDX-License-Identifier: Apache-2.0
"""The container images: which there are, whether they are current, how they are made.

An image is built in two steps, each of which works without a registry:

1. The *base*, `debian:<suite>-slim`.  It is pulled; where no registry answers,
   debootstrap makes it from the Debian mirror that this machine's apt uses
   (same mirror, same archive keyring) and the engine imports it under the same name.
2. The *target*, a stage of the Dockerfile.  Its label `nvcrucible.source` is the
   checksum of every file that went in, so "is it current?" needs no build.

The network is needed by apt only.  A build uses the host's network, because
the engine's own may have no way to the mirror.  Python packages come from
wheels that are fetched on the host, since pip's configuration (index,
certificates) belongs to the host and has no place in an image.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import docker
import requests.exceptions
from docker.errors import APIError, DockerException, ImageNotFound
from docker.utils import kwargs_from_env

from suite.errors import CrucibleError, EnvironmentMissing, RunnerUnavailable
from suite.project import project_root

__all__ = [
    "IMAGE_HOME",
    "SOURCE_LABEL",
    "TARGETS",
    "Target",
    "connect_engine",
    "ensure_base",
    "ensure_target",
    "inspect_image",
    "is_current",
    "main",
    "source_checksum",
]

IMAGE_HOME = Path("/opt/nvcrucible")
"""Where an image keeps the project; its build is in `IMAGE_HOME/build`."""
SOURCE_LABEL = "nvcrucible.source"
WHEELS = Path("build/wheels")
IMAGE_PYTHON = "3.11"
"""Python of Debian 12, for which the orchestrator's wheels are fetched."""
PULL_PATIENCE_S = 20
BUILD_PATIENCE_S = 900

Say = Callable[[str], None]


@dataclass(frozen=True)
class Target:
    """One image that the Dockerfile makes."""

    stage: str
    suite: str
    """Debian's name of the base."""
    sources: tuple[str, ...]
    """Files and folders of the project that the stage is made of."""
    needs_wheels: bool = False

    @property
    def tag(self) -> str:
        return f"nvcrucible-{self.stage}:{self.suite}"

    @property
    def base(self) -> str:
        return f"debian:{self.suite}-slim"


NATIVE_SOURCES = (
    "Dockerfile",
    "LICENSE",
    ".ci/allocator-packages",
    ".ci/packages",
    "meson.build",
    "meson_options.txt",
    "allocators",
    "workloads",
    "faults",
)
PYTHON_SOURCES = (*NATIVE_SOURCES, "pyproject.toml", "README.md", "suite")
TARGETS = {
    "job": Target("job", "bookworm", NATIVE_SOURCES),
    "orchestrator": Target("orchestrator", "bookworm", PYTHON_SOURCES, needs_wheels=True),
    "test": Target(
        "test", "bookworm", (*PYTHON_SOURCES, ".ci", "docs", "tests"), needs_wheels=True
    ),
}
IGNORED = ("__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis")


def connect_engine() -> docker.APIClient:
    """A client of the engine that DOCKER_HOST (or the default socket) names."""
    where = os.environ.get("DOCKER_HOST", "the default socket")
    try:
        client = docker.APIClient(**kwargs_from_env(), version="auto")
        client.ping()
    except (DockerException, requests.exceptions.RequestException, OSError) as error:
        if _caused_by(error, PermissionError):
            raise RunnerUnavailable(
                f"A Docker engine listens at {where} but refuses this user. Ask for membership of "
                "the group 'docker' (it amounts to root), run as root, set DOCKER_HOST to an "
                "engine of your own (rootless Docker), or use --runner local."
            ) from error
        raise RunnerUnavailable(
            f"No Docker engine answers at {where}. Start one (`systemctl start docker`), set "
            f"DOCKER_HOST to where one listens, or use --runner local. The client said: {error}"
        ) from error
    return client


def _caused_by(error: BaseException, kind: type[BaseException]) -> bool:
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending:
        current = pending.pop()
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        if isinstance(current, kind):
            return True
        seen.add(id(current))
        pending += [current.__cause__, current.__context__, *current.args]
    return False


# --- What an image is made of -------------------------------------------------------------


def _source_files(root: Path, target: Target) -> list[Path]:
    """Every file of the target, relative to `root`, in an order that never changes."""
    found: list[Path] = []
    for name in target.sources:
        path = root / name
        if path.is_dir():
            found += [
                file
                for file in path.rglob("*")
                if file.is_file() and not set(IGNORED) & set(file.relative_to(root).parts)
            ]
        elif path.is_file():
            found.append(path)
    return sorted({file.relative_to(root) for file in found})


def source_checksum(root: Path, target: Target) -> str:
    """SHA-256 over name, executable bit and content of all that goes into the image."""
    total = hashlib.sha256()
    for name in _source_files(root, target):
        file = root / name
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        total.update(f"{name}\0{os.access(file, os.X_OK)}\0{content}\n".encode())
    return total.hexdigest()


def _context(root: Path, files: Iterable[Path]) -> io.BytesIO:
    """The build context: owner and times left out, so that layers are found in the cache."""

    def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = 0
        entry.mode = 0o755 if entry.mode & 0o100 else 0o644
        return entry

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in files:
            archive.add(root / name, arcname=str(name), filter=anonymous)
    stream.seek(0)
    return stream


def is_current(client: docker.APIClient, root: Path, target: Target) -> bool:
    """Whether the engine has this image, made of exactly the present sources."""
    return _label(client, target) == source_checksum(root, target)


def _label(client: docker.APIClient, target: Target) -> str | None:
    image = inspect_image(client, target.tag)
    labels = (image or {}).get("Config", {}).get("Labels") or {}
    return cast("str | None", labels.get(SOURCE_LABEL))


def inspect_image(client: docker.APIClient, tag: str) -> dict[str, Any] | None:
    """What the engine knows of an image; None if it has none of that name."""
    try:
        return cast("dict[str, Any]", client.inspect_image(tag))  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return None


# --- The base -----------------------------------------------------------------------------


def ensure_base(client: docker.APIClient, suite: str, say: Say) -> None:
    """After this the engine has `debian:<suite>-slim`: its own, a pulled or a made one."""
    tag = f"{suite}-slim"
    if inspect_image(client, f"debian:{tag}") is not None:
        return
    say(f"pulling debian:{tag}")
    reason = _pull(client, tag)
    if reason is not None:
        say(f"no registry has it for us ({reason}); making debian:{tag} with debootstrap")
        _bootstrap(client, suite)


def _pull(client: docker.APIClient, tag: str) -> str | None:
    """None when it is there now, else why not."""
    patience = docker.APIClient(
        **kwargs_from_env(), version=client.api_version, timeout=PULL_PATIENCE_S
    )
    try:
        for event in patience.pull("debian", tag=tag, stream=True, decode=True):
            if "error" in event:
                return str(event["error"]).rpartition(": ")[2]
    except (APIError, requests.exceptions.RequestException) as error:
        return str(getattr(error, "explanation", None) or error).rpartition(": ")[2]
    finally:
        patience.close()
    return None


def _privileged(command: Sequence[str], purpose: str) -> list[str]:
    """The command as root runs it; we may be root, or have sudo without a password."""
    if os.geteuid() == 0:
        return list(command)
    sudo = shutil.which("sudo")
    if (
        sudo
        and not subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode
    ):
        return [sudo, "-n", "--preserve-env=http_proxy,https_proxy,no_proxy", *command]
    raise EnvironmentMissing(
        f"{purpose} takes root, and sudo wants a password here. Run `sudo make images` once, or "
        "make the base image known to the engine some other way (`docker load`)."
    )


def _bootstrap(client: docker.APIClient, suite: str) -> None:
    if shutil.which("debootstrap") is None:
        raise EnvironmentMissing(
            f"The base image debian:{suite}-slim can't be pulled, and debootstrap, which would "
            "make it, is not installed. Run `.ci/setup engine` or `apt-get install debootstrap`."
        )
    sources = _apt_sources(suite)
    mirror = [sources[0].split()[1]] if sources else []
    # Not in /tmp: that is often a tmpfs, or mounted nodev, where debootstrap refuses to work.
    root = Path(tempfile.mkdtemp(prefix="nvcrucible-base-", dir="/var/tmp"))
    purpose = "Making a base image with debootstrap"
    try:
        bootstrap = _privileged(
            ["debootstrap", "--variant=minbase", suite, str(root), *mirror], purpose
        )
        done = subprocess.run(
            bootstrap, capture_output=True, text=True, check=False, env=_proxy_environment()
        )
        if done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
            raise EnvironmentMissing(
                f"debootstrap could not make the base image of {suite} (exit code "
                f"{done.returncode}). Check that the mirror of this machine's apt answers "
                f"(`apt-get update`). It said:\n{tail}"
            )
        _slim(root, suite, sources, purpose)
        _import(client, root, suite, purpose)
    finally:
        subprocess.run(_privileged(["rm", "-rf", "--", str(root)], purpose), check=False)


def _apt_sources(suite: str) -> list[str]:
    """`deb` lines for `suite` by the mirrors of this machine's apt, the main archive first.

    A machine of another release of Debian serves as well: its mirror has them all.
    """
    own = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    if platform.freedesktop_os_release().get("ID") != "debian" or not own:
        return []
    form = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", form, "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    lines: list[str] = []
    for kind in ("", "-updates", "-security"):
        for row in listed.stdout.splitlines():
            match row.split():
                case [uri, release, "main"] if release == own + kind:
                    line = f"deb {uri} {suite}{kind} main"
                    if line not in lines:
                        lines.append(line)
    return lines if lines and lines[0].split()[2] == suite else []


APT_SETTINGS = ("Check-Valid-Until", "Check-Date", "Retries", "http::Timeout", "https::Timeout")
"""What the base takes over from this machine's apt.  Proxies and passwords it does not:
a proxy is given to the build as an argument that no layer keeps."""


def _apt_setting(name: str) -> str:
    answer = subprocess.run(
        ["apt-config", "shell", "value", f"Acquire::{name}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.partition("=")[2].strip().strip("'")


def _proxy_environment() -> dict[str, str]:
    """This process's environment, with the proxy of apt where none is set."""
    environment = dict(os.environ)
    if shutil.which("apt-config"):
        for scheme in ("http", "https"):
            proxy = _apt_setting(f"{scheme}::Proxy")
            if proxy and proxy != "DIRECT":
                environment.setdefault(f"{scheme}_proxy", proxy)
    return environment


DROPPED = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale")


def _slim(root: Path, suite: str, sources: list[str], purpose: str) -> None:
    """Makes the tree what a -slim image is: no documentation, no caches, apt ready to use."""
    settings = [
        f'Acquire::{name} "{value}";' for name in APT_SETTINGS if (value := _apt_setting(name))
    ]
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    files = {
        "etc/dpkg/dpkg.cfg.d/slim": "".join(f"path-exclude /{name}/*\n" for name in DROPPED),
        "etc/apt/apt.conf.d/90build": "\n".join(settings) + "\n",
    }
    if sources:
        files["etc/apt/sources.list"] = "\n".join(sources) + "\n"
    if any(" https:" in line for line in sources) and certificates.is_file():
        files["etc/ssl/certs/ca-certificates.crt"] = certificates.read_text()
    script = ["set -e", 'cd "$1"']
    script += [f"rm -rf {name}" for name in DROPPED]
    script += ["rm -rf var/cache/apt/* var/lib/apt/lists/* var/log/*"]
    with tempfile.TemporaryDirectory() as staging:
        for name, text in files.items():
            file = Path(staging) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        script.append('cp -r --no-preserve=ownership "$2"/. .')
        command = ["sh", "-c", "\n".join(script), "slim", str(root), staging]
        done = subprocess.run(
            _privileged(command, purpose), capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise EnvironmentMissing(
            f"The base tree of {suite} can't be trimmed: {done.stderr.strip()}"
        )


def _import(client: docker.APIClient, root: Path, suite: str, purpose: str) -> None:
    pack = _privileged(["tar", "--numeric-owner", "-C", str(root), "-c", "."], purpose)
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as tar:
        assert tar.stdout is not None  # noqa: S101 - Popen was given PIPE
        answer = client.import_image_from_stream(
            tar.stdout, repository="debian", tag=f"{suite}-slim", changes=['CMD ["bash"]']
        )
    if tar.returncode != 0 or "error" in str(answer):
        raise EnvironmentMissing(
            f"The engine did not take the base image debian:{suite}-slim (tar ended with "
            f"{tar.returncode}). Is its disk full? It said: {str(answer).strip()}"
        )


# --- The targets --------------------------------------------------------------------------


def ensure_target(client: docker.APIClient, root: Path, target: Target, say: Say) -> bool:
    """After this the engine has a current image of the target; True if it had to be built."""
    checksum = source_checksum(root, target)
    if _label(client, target) == checksum:
        return False
    ensure_base(client, target.suite, say)
    files = _source_files(root, target)
    if target.needs_wheels:
        _fetch_wheels(root, say)
        files += sorted(file.relative_to(root) for file in (root / WHEELS).glob("*.whl"))
    say(f"building {target.tag}")
    before = inspect_image(client, target.tag)
    _build(client, _context(root, files), target, checksum)
    if before is not None:
        # Its layers stay as long as another image or the build cache uses them.  A container that
        # still runs of it keeps it, and so does another name for it.
        with contextlib.suppress(APIError):
            client.remove_image(before["Id"], noprune=True)
    return True


def _build(client: docker.APIClient, context: io.BytesIO, target: Target, checksum: str) -> None:
    environment = _proxy_environment()
    arguments = {"BASE": target.base}
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        if name in environment:
            arguments[name] = environment[name]
    transcript: list[str] = []
    try:
        for event in client.build(
            fileobj=context,
            custom_context=True,
            target=target.stage,
            tag=target.tag,
            labels={SOURCE_LABEL: checksum},
            buildargs=arguments,
            network_mode="host",
            rm=True,
            forcerm=True,
            decode=True,
            timeout=BUILD_PATIENCE_S,
        ):
            transcript.append(str(event.get("stream") or event.get("error") or ""))
            if "error" in event:
                tail = "\n".join("".join(transcript).strip().splitlines()[-20:])
                raise EnvironmentMissing(f"The image {target.tag} could not be built:\n{tail}")
    except (APIError, requests.exceptions.RequestException) as error:
        raise EnvironmentMissing(
            f"The engine refused to build the image {target.tag}: {error}"
        ) from error


def _fetch_wheels(root: Path, say: Say) -> None:
    """Fills build/wheels with what pyproject.toml asks for, for the image's Python."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    wanted = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["dev"],
    ]
    folder = root / WHEELS
    stamp = folder / "stamp"
    key = f"{IMAGE_PYTHON} {platform.machine()} {' '.join(wanted)}"
    if stamp.is_file() and stamp.read_text() == key:
        return
    say("fetching the orchestrator's Python packages")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    platforms = [
        f"--platform={tag}_{platform.machine()}"
        for tag in ("manylinux2014", *(f"manylinux_2_{minor}" for minor in range(17, 37)))
    ]
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--only-binary=:all:", f"--python-version={IMAGE_PYTHON}", "--implementation=cp",
        *platforms, "--dest", str(folder), *wanted,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise EnvironmentMissing(
            f"pip could not fetch the Python packages of the orchestrator's image. Check that this "
            f"machine reaches its package index. It said:\n{tail}"
        )
    stamp.write_text(key)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m suite.images [TARGET...]`, what `make images` runs."""
    parser = argparse.ArgumentParser(
        prog="python -m suite.images", description="Makes the container images of nvcrucible."
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of: {', '.join(TARGETS)}")
    parser.add_argument(
        "--if-engine", action="store_true", help="succeed and do nothing where no engine answers"
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.targets if name not in TARGETS]
    if unknown:
        parser.error(f"there is no target '{unknown[0]}'; choose of: {', '.join(TARGETS)}")

    def say(line: str) -> None:
        sys.stderr.write(f"images: {line}\n")

    try:
        client = connect_engine()
    except RunnerUnavailable as error:
        say(str(error))
        return 0 if options.if_engine else error.exit_code
    try:
        for name in options.targets or TARGETS:
            target = TARGETS[name]
            started = time.monotonic()
            built = ensure_target(client, project_root(), target, say)
            took = f" ({time.monotonic() - started:.0f} s)" if built else ""
            say(f"{target.tag} is {'built' if built else 'current'}{took}")
    except CrucibleError as error:
        say(str(error))
        return error.exit_code
    finally:
        client.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
