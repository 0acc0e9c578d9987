# The neuron backend: Neuron SDK 2.28.1 on trn1. The driver is the node's, and must be of the same release
# (docs/trainium.md). From the repository's root, on x86-64:
#   docker build --file docker/neuron.Dockerfile --tag trainer:neuron .
FROM ubuntu:22.04

ENV DEBIAN_FRONTEND=noninteractive \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# Ubuntu keeps no old versions of a package, so none is pinned. Its Python is 3.10, of which AWS has wheels.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates curl g++ gnupg python3 python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*

# Runtime, collectives and tools: versions of trainer/trainium/releases.py, which a test keeps equal.
RUN curl --fail --silent --show-error https://apt.repos.neuron.amazonaws.com/GPG-PUB-KEY-AMAZON-AWS-NEURON.PUB \
  | gpg --dearmor --output /usr/share/keyrings/neuron.gpg \
 && echo "deb [signed-by=/usr/share/keyrings/neuron.gpg] https://apt.repos.neuron.amazonaws.com jammy main" \
  > /etc/apt/sources.list.d/neuron.list \
 && apt-get update \
 && apt-get install --yes --no-install-recommends \
    aws-neuronx-collectives=2.30.59.0* \
    aws-neuronx-runtime-lib=2.30.51.0* \
    aws-neuronx-tools=2.28.23.0* \
 && rm -rf /var/lib/apt/lists/*

# libfabric for EFA, without the kernel module, which is the node's. It is signed by the key of this fingerprint, which
# AWS's page on EFA names.
WORKDIR /opt/efa-installer
RUN apt-get update \
 && curl --fail --silent --show-error \
    --remote-name https://efa-installer.amazonaws.com/aws-efa-installer-1.47.0.tar.gz \
    --remote-name https://efa-installer.amazonaws.com/aws-efa-installer-1.47.0.tar.gz.sig \
    --remote-name https://efa-installer.amazonaws.com/aws-efa-installer.key \
 && gpg --import aws-efa-installer.key \
 && gpg --status-fd 1 --verify aws-efa-installer-1.47.0.tar.gz.sig aws-efa-installer-1.47.0.tar.gz \
  | grep 'VALIDSIG .*4E9091BCBB97A96B26B15E59A05480B1DD2D3CCC' \
 && tar --extract --strip-components 1 --file aws-efa-installer-1.47.0.tar.gz \
 && ./efa_installer.sh --yes --skip-kmod --skip-limit-conf --no-verify \
 && rm -rf /opt/efa-installer /var/lib/apt/lists/*

ENV PATH="/opt/venv/bin:/opt/aws/neuron/bin:/opt/amazon/efa/bin:${PATH}" \
    LD_LIBRARY_PATH="/opt/aws/neuron/lib:/opt/amazon/efa/lib"

WORKDIR /opt/trainer

# What the project needs, before the project: a change of its code builds only the layers after this one. The same names
# elsewhere are empty placeholders: the constraints hold the versions of AWS's own index.
COPY pyproject.toml README.md LICENSE constraints-neuron.txt ./
RUN python3 -m venv /opt/venv \
 && pip install --no-cache-dir --extra-index-url https://pip.repos.neuron.amazonaws.com \
    --constraint constraints-neuron.txt --editable ".[neuron]"

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
