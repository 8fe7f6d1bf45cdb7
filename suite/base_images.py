# SPDX-License-Identifier: Apache-2.0
"""The Debian base images: pulled, or made by debootstrap where no registry answers.

A made base has the mirror and the archive keyring of this machine's apt, and the
name that the registry's has, so nothing after it knows the difference.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import docker
import requests.exceptions
from docker.errors import APIError
from docker.utils import kwargs_from_env

from suite.engine import inspect_image
from suite.errors import EnvironmentMissing

__all__ = ["Say", "apt_sources", "ensure_base", "proxy_environment"]

PULL_PATIENCE_S = 20

Say = Callable[[str], None]
"""Receives one line of progress, for people."""


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
    sources = apt_sources(suite)
    mirror = [sources[0].split()[1]] if sources else []
    # Not in /tmp: that is often a tmpfs, or mounted nodev, where debootstrap refuses to work.
    root = Path(tempfile.mkdtemp(prefix="nvcrucible-base-", dir="/var/tmp"))
    purpose = "Making a base image with debootstrap"
    try:
        bootstrap = _privileged(
            ["debootstrap", "--variant=minbase", suite, str(root), *mirror], purpose
        )
        done = subprocess.run(
            bootstrap, capture_output=True, text=True, check=False, env=proxy_environment()
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


def apt_sources(suite: str) -> list[str]:
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


def proxy_environment() -> dict[str, str]:
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
