# Two targets from one build: `cpu` (crawl, match, diff, reports, small evaluations) and `gpu` (the same with NVIDIA's driver
# injected by the container toolkit). Run either with `--init`, so that signals reach forkwatch and children are reaped.
#
#   docker build --target cpu --build-arg TORCH_INDEX=<PyTorch's CPU wheel index> -t forkwatch:cpu .
#   docker build --target gpu -t forkwatch:gpu .
#   docker run --rm --init --read-only --tmpfs /tmp -v forkwatch:/var/lib/forkwatch forkwatch:cpu
#   docker run --rm --init --read-only --tmpfs /tmp --no-healthcheck -v forkwatch:/var/lib/forkwatch forkwatch:cpu scan org/name
#
# Without TORCH_INDEX the cpu image works too, but carries the CUDA libraries of the default torch wheel.
ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV PATH=/opt/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
WORKDIR /src
# Dependencies first: they change less often than the source, and are most of the image.
COPY pyproject.toml constraints.txt ./
ARG TORCH_INDEX=""
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
      > requirements.txt \
 && pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r requirements.txt
COPY . .
RUN pip install --no-cache-dir --no-deps -c constraints.txt .

FROM ${PYTHON_IMAGE} AS cpu
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="forkwatch" \
      org.opencontainers.image.description="Watches the Hugging Face Hub for forks of signed open-weight releases" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 forkwatch \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/forkwatch --create-home --shell /usr/sbin/nologin forkwatch
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    FORKWATCH_STATE_DIR=/var/lib/forkwatch \
    HF_HOME=/var/lib/forkwatch/hf \
    HF_HUB_DISABLE_TELEMETRY=1
WORKDIR /var/lib/forkwatch
VOLUME /var/lib/forkwatch
USER 10001:10001
STOPSIGNAL SIGTERM
# Of the daemon; another command is healthy as long as it runs, so say --no-healthcheck with it.
HEALTHCHECK --interval=1m --timeout=20s --start-period=2m --retries=3 CMD ["forkwatch", "health"]
ENTRYPOINT ["forkwatch"]
CMD ["daemon"]

# The slim image lacks the two variables by which the container toolkit decides to mount the driver.
FROM cpu AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
