# mmvanilla on a CPU, with the tested versions of requirements/fork.txt:
#
#     docker build --tag mmvanilla .
#     docker run --rm --volume "$PWD":/workspace mmvanilla mmvanilla train CONFIG
#
# Not run here, for want of a Docker engine: hadolint passes, apt-get was simulated on Debian 12, and
# `make env` was run there. The image is large (about 10 GB), since torchvision on the package index
# fits torch's CUDA build only.
FROM python:3.11-slim-bookworm

# g++ and make: mmcv's ops are compiled. libgl1 and libglib2.0-0: OpenCV loads them.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libgl1 libglib2.0-0 make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/mmvanilla
COPY . .
# The caches of pip and of mmcv's wheel serve no later build: a layer does not outlive a change.
RUN make env VENV=/opt/venv && rm -rf /root/.cache

ENV PATH=/opt/venv/bin:$PATH
WORKDIR /workspace
CMD ["mmvanilla", "--help"]
