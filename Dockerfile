# Three images from one file:
#   docker build --target exporter .                       no Ray: for --discovery-file and --controller
#   docker build --target exporter-ray --build-arg RAY_VERSION=2.60.0 --build-arg TQ_VERSION=0.1.11 .
#                                                          with Ray and TransferQueue: for --ray-address
#   docker build --target on-training --build-arg TRAINING_IMAGE=registry.example/train:tag .
#                                                          on top of a training image, which already has the cluster's Ray
#
# Pass --build-arg COMMIT=$(git rev-parse --short=12 HEAD), and for a release --build-arg VERSION=0.1.0; make dist writes both
# into dist/image.args. tq-exporter --version and the image's labels say them. The build has no access to the git repository, so
# it cannot find them itself.
#
# BuildKit, podman and buildah build only the stages that the target needs. Docker's classic builder builds every stage above the
# target: so exporter comes first, and the stages above exporter-ray build without arguments. No "# syntax=" line: it
# would fetch a front end from a registry, which a builder without Internet access cannot reach.

ARG PYTHON_VERSION=3.11.14
ARG TRAINING_IMAGE=python:${PYTHON_VERSION}-slim-bookworm

FROM python:${PYTHON_VERSION}-slim-bookworm AS wheel
ARG VERSION=""
ARG COMMIT=""
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY dataplane dataplane
COPY exporter exporter
COPY dashboards dashboards
RUN SETUPTOOLS_SCM_PRETEND_VERSION_FOR_TQ_EXPORTER="${VERSION}" \
    SETUPTOOLS_SCM_PRETEND_METADATA_FOR_TQ_EXPORTER="{node = 'g${COMMIT}'}" \
    pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM python:${PYTHON_VERSION}-slim-bookworm AS environment
COPY constraints.txt /constraints.txt
COPY --from=wheel /wheel /wheel
# Without a pip of its own, which would be a third of the environment: the base image's pip installs into it.
RUN python -m venv --without-pip /opt/tq-exporter \
    && pip --python /opt/tq-exporter/bin/python install --no-cache-dir --constraint /constraints.txt /wheel/*.whl

FROM python:${PYTHON_VERSION}-slim-bookworm AS base
ARG VERSION=""
ARG COMMIT=""
LABEL org.opencontainers.image.title="tq-exporter" \
    org.opencontainers.image.description="Metrics and traces of a running TransferQueue" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.revision="${COMMIT}"
ENV PATH=/opt/tq-exporter/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RAY_USAGE_STATS_ENABLED=0
RUN groupadd --gid 65532 exporter && useradd --uid 65532 --gid 65532 --no-create-home --shell /usr/sbin/nologin exporter
EXPOSE 9464
# The exporter writes no files: run it with a read-only root file system. The image with Ray needs a writable /tmp.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 CMD ["tq-exporter", "healthcheck"]
ENTRYPOINT ["tq-exporter"]
CMD ["run"]

FROM base AS exporter
COPY --from=environment /opt/tq-exporter /opt/tq-exporter
USER 65532:65532

FROM ${TRAINING_IMAGE} AS on-training
ARG VERSION=""
ARG COMMIT=""
LABEL org.opencontainers.image.title="tq-exporter" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.revision="${COMMIT}"
COPY --from=wheel /wheel /wheel
# Install into a separate virtual environment that can import the image's Ray and TransferQueue but does not change them.
# If the image's Python is itself in a virtual environment, --system-site-packages does not include its packages: the
# .pth file adds them. If the image already has a tq-exporter, pip would keep that one: --ignore-installed prevents it.
RUN python3 -m venv --system-site-packages /opt/tq-exporter \
    && python3 -c 'import site; [print(f"import site; site.addsitedir({path!r})") for path in site.getsitepackages()]' \
        > "$(/opt/tq-exporter/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/training-image.pth" \
    && /opt/tq-exporter/bin/pip install --no-cache-dir --no-deps --ignore-installed /wheel/*.whl \
    && /opt/tq-exporter/bin/pip install --no-cache-dir /wheel/*.whl
ENV PATH=/opt/tq-exporter/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0
EXPOSE 9464
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 CMD ["tq-exporter", "healthcheck"]
ARG RUN_AS=65532:65532
USER ${RUN_AS}
# This fails if the image's Python is below /root, which that user cannot read: make it readable, or pass RUN_AS=0:0.
RUN ["tq-exporter", "--version"]
ENTRYPOINT ["tq-exporter"]
CMD ["run"]

FROM environment AS environment-ray
# Ray accepts only drivers with the cluster's versions of Ray (RAY_VERSION) and Python (PYTHON_VERSION).
ARG RAY_VERSION
ARG TQ_VERSION
# The exporter needs no GPU, and torch's CUDA build takes gigabytes: pass the index of the CPU build here.
ARG TORCH_INDEX_URL=""
RUN grep -vE '^(ray|TransferQueue|torch)==' /constraints.txt > /constraints-ray.txt \
    && pip --python /opt/tq-exporter/bin/python install --no-cache-dir --constraint /constraints-ray.txt \
        ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} \
        torch "ray[default]==${RAY_VERSION:?give the version of the cluster}" "TransferQueue==${TQ_VERSION:?give the version of the job}" tensordict

FROM base AS exporter-ray
COPY --from=environment-ray /opt/tq-exporter /opt/tq-exporter
USER 65532:65532

# The last stage is the default: a build without --target makes it.
FROM exporter AS default
