# mmvanilla with the tested versions of requirements/fork.txt, for CPUs and NVIDIA GPUs:
#
#     docker build --tag mmvanilla .
#     docker run --rm --gpus all --shm-size 8g --volume "$PWD":/workspace mmvanilla mmvanilla train CONFIG
#
# Without a GPU, leave out --gpus. Not run here, for want of a Docker engine; `make test` was run in an
# empty folder. The image is large (about 8 GB), since pip's torch brings the libraries of CUDA along.
FROM python:3.11-slim-bookworm

# OpenCV loads libgl1 and libglib2.0-0.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/mmvanilla
COPY . .
RUN make VENV=/opt/venv /opt/venv/stack && rm -rf /root/.cache

ENV PATH=/opt/venv/bin:$PATH
WORKDIR /workspace
CMD ["mmvanilla", "--help"]
