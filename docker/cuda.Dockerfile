# fastcal with its CUDA module, for a machine with an NVIDIA GPU and the NVIDIA Container Toolkit.
#
#   docker build -f docker/cuda.Dockerfile -t fastcal:cuda .
#   docker run --rm --gpus all -v "$PWD:/data" -w /data -u "$(id -u):$(id -g)" fastcal:cuda bench --quick
FROM nvidia/cuda:12.9.1-devel-ubuntu24.04 AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ git python3-venv python3-dev \
 && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN python3 -m venv /opt/fastcal \
 && /opt/fastcal/bin/pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cu129 \
      -C cmake.define.FASTCAL_CUDA=ON "/source[train,report,quality,itk,pictures]"

# The wheel of torch brings CUDA's libraries along; the driver comes from the host.
FROM ubuntu:24.04
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/fastcal /opt/fastcal
ENV PATH=/opt/fastcal/bin:$PATH HOME=/tmp NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN fastcal info --no-gpu
USER 1000
ENTRYPOINT ["fastcal"]
CMD ["--help"]
