# syntax=docker/dockerfile:1.7
# The hospital's side. From the repository's root:
#   docker build -f deploy/client.Dockerfile -t hymate-client:0.1.0 .                      (CPU)
#   docker build -f deploy/client.Dockerfile --target cuda -t hymate-client:0.1.0-cuda .   (NVIDIA GPU)
# Works with a read-only root. Writable must be: /tmp (tmpfs) and /var/lib/hymate (volume; cache, state).
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
ARG CUDA_IMAGE=nvidia/cuda:13.0.1-devel-ubuntu22.04

FROM ${CUDA_IMAGE} AS toolkit

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

FROM compiler AS install-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/hymate \
 && /opt/hymate/bin/pip install -c constraints.txt --extra-index-url "${TORCH_INDEX}" torch
COPY --from=wheel /wheels /wheels
RUN /opt/hymate/bin/pip install -c constraints.txt /wheels/*.whl

FROM compiler AS install-cuda
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu130
# mamba-ssm and causal-conv1d compile their kernels, for these architectures (A100, L40, H100).
ARG TORCH_CUDA_ARCH_LIST="8.0 8.9 9.0"
ARG MAX_JOBS=4
COPY --from=toolkit /usr/local/cuda /usr/local/cuda
ENV CUDA_HOME=/usr/local/cuda MAMBA_FORCE_BUILD=TRUE CAUSAL_CONV1D_FORCE_BUILD=TRUE
RUN python -m venv /opt/hymate \
 && /opt/hymate/bin/pip install -c constraints.txt --extra-index-url "${TORCH_INDEX}" torch \
 && /opt/hymate/bin/pip install -c constraints.txt setuptools wheel packaging ninja
RUN PATH="/opt/hymate/bin:/usr/local/cuda/bin:${PATH}" \
    /opt/hymate/bin/pip install -c constraints.txt --no-build-isolation "causal-conv1d>=1.5" "mamba-ssm>=2.2.4"
COPY --from=wheel /wheels /wheels
RUN /opt/hymate/bin/pip install -c constraints.txt /wheels/*.whl

FROM ${PYTHON_IMAGE} AS runtime
# libgomp1: the native kernel's threads; tini: as process 1 it buries what a SuperNode leaves behind.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgomp1 tini \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 hymate \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin hymate \
 && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/hymate
# HOME: whatever wants a cache of its own (matplotlib, Triton) finds the tmpfs.
# OMP_WAIT_POLICY: waiting threads sleep; spinning ones would burn a CPU limit that others could use.
ENV PATH=/opt/hymate/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_WAIT_POLICY=passive \
    FLWR_TELEMETRY_ENABLED=0 \
    FLWR_DISABLE_UPDATE_CHECK=1 \
    RAY_USAGE_STATS_ENABLED=0
LABEL org.opencontainers.image.title="hymate-client" \
      org.opencontainers.image.description="A hospital's side of federated HyMaTE; no patient row leaves it" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 10001:10001
WORKDIR /site
VOLUME /var/lib/hymate
# The default of `health_address` in the site file; gRPC, no TLS.
EXPOSE 9094
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=6 \
    CMD ["python", "-m", "hymate.health", "127.0.0.1:9094"]
ENTRYPOINT ["tini", "--", "hymate-client"]
CMD ["--config", "/site/site.yaml"]

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=install-cuda /opt/hymate /opt/hymate

# Last, so that it is what a build without --target makes.
FROM runtime AS cpu
COPY --from=install-cpu /opt/hymate /opt/hymate
