# Trains on a CPU. For NVIDIA GPUs: docker build --build-arg EXTRA=cuda .
FROM python:3.12-slim-bookworm
ARG EXTRA=
WORKDIR /opt/cifar_jax
COPY requirements/locked.lock requirements/locked.lock
RUN pip install --no-cache-dir --require-hashes --requirement requirements/locked.lock
COPY . .
RUN pip install --no-cache-dir ".${EXTRA:+[$EXTRA]}"
RUN useradd --create-home user
USER user
WORKDIR /home/user
ENTRYPOINT ["cifar-jax"]
CMD ["--help"]
