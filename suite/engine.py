# SPDX-License-Identifier: Apache-2.0
"""The Docker engine: is there one, and does it let us?"""

from __future__ import annotations

import os
from typing import Any, cast

import docker
import requests.exceptions
from docker.errors import DockerException, ImageNotFound
from docker.utils import kwargs_from_env

from suite.errors import RunnerUnavailable

__all__ = ["connect_engine", "inspect_image"]


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


def inspect_image(client: docker.APIClient, tag: str) -> dict[str, Any] | None:
    """What the engine knows of an image; None if it has none of that name."""
    try:
        return cast("dict[str, Any]", client.inspect_image(tag))  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return None
