# Foveal Studio: docker build --tag foveal . (see docs/serving.md)
FROM python:3.12.11-slim-bookworm@sha256:519591d6871b7bc437060736b9f7456b8731f1499a57e22e6c285135ae657bf7

# PyTorch's own index has builds without CUDA, a tenth of the size: --build-arg TORCH_INDEX=URL
ARG TORCH_INDEX=

COPY pyproject.toml README.md constraints.txt /src/
COPY src /src/src
COPY recipes /src/recipes
RUN pip install --no-cache-dir --constraint /src/constraints.txt \
        ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch \
    && pip install --no-cache-dir --constraint /src/constraints.txt '/src[app]' \
    && useradd --create-home --uid 1000 foveal \
    && rm -rf /src

USER 1000
WORKDIR /home/foveal
ENV HOME=/tmp MPLCONFIGDIR=/tmp PYTHONDONTWRITEBYTECODE=1
EXPOSE 7860
HEALTHCHECK CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/healthz')"]

# Binds to all addresses of the container, so it wants FOVEAL_TOKEN, or another command with --auth.
CMD ["foveal", "serve", "--host", "0.0.0.0", "--port", "7860"]
