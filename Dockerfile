# SPDX-License-Identifier: Apache-2.0
# The images of nvcrucible; `make images` builds them (docs/containers.md).
#
#   job           what one job's container holds: nvdrive, the adapters, their libraries; no Python, no compiler
#   orchestrator  job + the nvcrucible command, for `docker-compose run bench` and `fault`
#   test          compiler, headers, all test tools, for `docker-compose run test`
#
# Every RUN works with the classic builder and with BuildKit.  Only apt uses the network.

ARG BASE=debian:bookworm-slim

FROM ${BASE} AS tools
ENV DEBIAN_FRONTEND=noninteractive
COPY .ci/packages/build.txt .ci/packages/image.txt /packages/
RUN apt-get update \
 && sed 's/#.*//' /packages/*.txt | xargs apt-get install -y --no-install-recommends \
 && rm -rf /var/lib/apt/lists/*

# The allocators' own packages, as lists: a stage of its own, so that a changed
# source file does not install them anew.
FROM tools AS packages
COPY .ci/allocator-packages /project/.ci/allocator-packages
COPY allocators /project/allocators
RUN python3 /project/.ci/allocator-packages build > /packages/allocators-build.txt \
 && python3 /project/.ci/allocator-packages run > /packages/allocators-run.txt

FROM tools AS headers
COPY --from=packages /packages/allocators-build.txt /packages/
RUN apt-get update \
 && xargs -a /packages/allocators-build.txt apt-get install -y --no-install-recommends \
 && rm -rf /var/lib/apt/lists/*

FROM headers AS build
COPY meson.build meson_options.txt /project/
COPY allocators /project/allocators
COPY workloads /project/workloads
COPY faults /project/faults
RUN meson setup -Dtests=false /project/build /project && ninja -C /project/build
# Programs, libraries and the list of what was skipped; objects and sources stay behind.
RUN cd /project/build \
 && find . -type f \( -executable -o -name '*.so' -o -name '*.so.*' -o -name skipped.json -o -name recipe.json \) \
      ! -path '*/meson-private/*' ! -name '*.p' -exec install -D {} /image/build/{} \;

FROM ${BASE} AS job
ENV DEBIAN_FRONTEND=noninteractive
COPY .ci/packages/job.txt /packages/
COPY --from=packages /packages/allocators-run.txt /packages/
RUN apt-get update \
 && sed 's/#.*//' /packages/*.txt | xargs apt-get install -y --no-install-recommends \
 && rm -rf /var/lib/apt/lists/* /packages \
 && useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin nvcrucible
COPY LICENSE /opt/nvcrucible/
COPY --from=build /image/build /opt/nvcrucible/build
USER nvcrucible
ENTRYPOINT ["/usr/bin/tini-static", "--", "/opt/nvcrucible/build/workloads/nvdrive"]

FROM job AS orchestrator
USER root
COPY .ci/packages/orchestrator.txt /packages/
RUN apt-get update \
 && sed 's/#.*//' /packages/*.txt | xargs apt-get install -y --no-install-recommends \
 && rm -rf /var/lib/apt/lists/* /packages
WORKDIR /opt/nvcrucible
# Wheels that `make images` fetched: a build need not reach a package index.
COPY build/wheels /wheels
COPY pyproject.toml README.md ./
COPY suite suite
RUN python3 -m venv .venv \
 && .venv/bin/python -m pip install --no-index --find-links /wheels --no-cache-dir --editable . \
 && rm -rf /wheels
COPY allocators allocators
COPY workloads workloads
ENV NVCRUCIBLE_HOME=/opt/nvcrucible NVCRUCIBLE_BUILD=/opt/nvcrucible/build
USER nvcrucible
ENTRYPOINT ["/usr/bin/tini-static", "--", "/opt/nvcrucible/.venv/bin/nvcrucible"]

FROM headers AS test
COPY .ci/packages/host.txt .ci/packages/job.txt .ci/packages/test.txt /packages/
RUN apt-get update \
 && sed 's/#.*//' /packages/host.txt /packages/job.txt /packages/test.txt \
      | xargs apt-get install -y --no-install-recommends \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin nvcrucible
WORKDIR /opt/nvcrucible
COPY build/wheels /wheels
COPY pyproject.toml README.md LICENSE ./
COPY suite suite
RUN python3 -m venv .venv \
 && .venv/bin/python -m pip install --no-index --find-links /wheels --no-cache-dir --editable '.[dev]' \
 && rm -rf /wheels
COPY . .
# Where test runners write, compose.yaml mounts a tmpfs; over nothing, or it would take the owner of what it covers.
RUN PATH=/opt/nvcrucible/.venv/bin:$PATH && meson setup build && ninja -C build && rm -rf build/meson-logs
USER nvcrucible
ENTRYPOINT ["/usr/bin/tini-static", "--", "/opt/nvcrucible/.venv/bin/python", "/opt/nvcrucible/.ci/test", "--no-docker"]
