# Build:  docker build --tag pixxel-runner .
# Use:    docs/containers.md, docs/kubernetes.md
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY requirements requirements
COPY runner runner
COPY schemas schemas
# Build tools and dependencies are the locked releases, verified by their hashes.
# pip compiles bytecode at installation, so nothing is written beside the code at run time.
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement requirements/package.txt \
    && /opt/build/bin/python -m build --no-isolation --wheel --outdir /opt/dist \
    && python -m venv /opt/pixxel-runner \
    && /opt/pixxel-runner/bin/pip install --no-cache-dir --require-hashes --requirement requirements/runtime.txt \
    && /opt/pixxel-runner/bin/pip install --no-cache-dir --no-deps /opt/dist/*.whl

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="pixxel-runner" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.description="Declarative batch runner for the Pixxel API that creates each job exactly once"
# The directory belongs to the user, and so does a new volume that is mounted there.
RUN install --directory --owner=10001 --group=10001 --mode=0700 /data
COPY --from=build /opt/pixxel-runner /opt/pixxel-runner
# A named ledger must exist: a container without its volume refuses to run instead of creating every job again.
ENV PATH=/opt/pixxel-runner/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PIXXEL_RUNNER_LEDGER=/data/ledger.db
# Results files go to the working directory.
WORKDIR /data
USER 10001:10001
# Without a shell in between, signals reach the program, and a run stops gracefully.
ENTRYPOINT ["pixxel-runner"]
CMD ["--help"]
