# The native backend: PyTorch on CPU, or on NVIDIA cards where the nodes have their driver. From the repository's root:
#   docker build --file docker/native.Dockerfile --tag trainer:native .
# PyTorch's wheels with CUDA are the default; its index of CPU wheels makes a far smaller image:
#   --build-arg INDEX=<that index>
FROM python:3.12-slim-bookworm

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1

# g++ compiles the kernels of scripts/generate.py. Debian keeps no old versions of a package, so none is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/trainer

# What the project needs, before the project: a change of its code builds only the layers after this one.
COPY pyproject.toml README.md LICENSE constraints.txt ./
ARG INDEX=
RUN pip install --no-cache-dir ${INDEX:+--extra-index-url "$INDEX"} --constraint constraints.txt --editable ".[s3]"

COPY . .
RUN pip install --no-cache-dir --no-deps --editable . \
 && python -m compileall -q trainer recipes scripts

# runs is where a volume is mounted (launcher.kubernetes.volume_path); the caches may be on one, too.
RUN groupadd --gid 1000 trainer \
 && useradd --uid 1000 --gid 1000 --create-home trainer \
 && mkdir runs .cache \
 && chown 1000:1000 runs .cache
USER 1000:1000

CMD ["python", "scripts/train.py"]
