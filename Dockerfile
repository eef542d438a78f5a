# Trains on a CPU. For NVIDIA GPUs: docker build --build-arg EXTRA=cuda .
FROM python:3.12-slim-bookworm
ARG EXTRA=
WORKDIR /opt/cifar_jax
COPY requirements/locked.lock requirements/locked.lock
RUN pip install --no-cache-dir --require-hashes --requirement requirements/locked.lock
COPY . .
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".${EXTRA:+[$EXTRA]}" && useradd --create-home --uid 1000 user
USER 1000
WORKDIR /home/user
ENTRYPOINT ["cifar-jax"]
CMD ["--help"]
