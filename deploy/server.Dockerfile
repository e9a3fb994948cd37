# syntax=docker/dockerfile:1.7
# The coordinator. From the repository's root:
#   docker build -f deploy/server.Dockerfile -t flower-server:0.1.0 .
# Works with a read-only root. Writable must be: /tmp (tmpfs) and /runs (volume; reports, checkpoints).
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS compiler
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Debian keeps no old versions of a release's packages: a pinned one is gone with the next security fix.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY constraints.txt ./
RUN pip install -c constraints.txt scikit-build-core nanobind cmake ninja

# The project's wheel, the native kernel included (it needs no torch to compile).
FROM compiler AS wheel
COPY pyproject.toml CMakeLists.txt README.md LICENSE ./
COPY hymate hymate
COPY strategies strategies
COPY client client
COPY server server
COPY deploy deploy
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

# The coordinator averages weights and trains nothing: torch for the CPU is enough.
FROM compiler AS install
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/hymate \
 && /opt/hymate/bin/pip install -c constraints.txt --extra-index-url "${TORCH_INDEX}" torch
COPY --from=wheel /wheels /wheels
RUN /opt/hymate/bin/pip install -c constraints.txt /wheels/*.whl

FROM ${PYTHON_IMAGE} AS runtime
# libgomp1: the native kernel's threads; tini: as process 1 it buries what a SuperLink leaves behind.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgomp1 tini \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 hymate \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin hymate \
 && install --directory --owner 10001 --group 10001 --mode 0700 /runs
# HOME: whatever wants a cache of its own finds the tmpfs.
ENV PATH=/opt/hymate/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_WAIT_POLICY=passive \
    FLWR_TELEMETRY_ENABLED=0 \
    FLWR_DISABLE_UPDATE_CHECK=1 \
    RAY_USAGE_STATS_ENABLED=0
LABEL org.opencontainers.image.title="flower-server" \
      org.opencontainers.image.description="The coordinator of federated HyMaTE" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=install /opt/hymate /opt/hymate
USER 10001:10001
WORKDIR /
VOLUME /runs
# 9092: sites (TLS, node keys). 9091: gRPC health, no TLS, for probes.
EXPOSE 9092 9091
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-m", "hymate.health", "127.0.0.1:9091"]
ENTRYPOINT ["tini", "--", "flower-server"]
CMD ["--config", "/study/study.yaml"]
