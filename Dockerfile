# Build:  docker build --tag pixxel-runner .
# Use:    docs/containers.md, docs/kubernetes.md
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY requirements requirements
COPY runner runner
COPY schemas schemas
# What builds the wheel and what it needs are of the releases that are locked, each checked by its hash.
# pip compiles what it installs: at run time nothing is written beside the code.
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement requirements/package.txt \
    && /opt/build/bin/python -m build --no-isolation --wheel --outdir /opt/dist \
    && python -m venv /opt/pixxel-runner \
    && /opt/pixxel-runner/bin/pip install --no-cache-dir --require-hashes --requirement requirements/runtime.txt \
    && /opt/pixxel-runner/bin/pip install --no-cache-dir --no-deps /opt/dist/*.whl

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="pixxel-runner" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.description="Declarative batch runner for the Pixxel API: each job created exactly once, and on record"
# The folder is the user's, and so is a new volume that is mounted there.
RUN install --directory --owner=10001 --group=10001 --mode=0700 /data
COPY --from=build /opt/pixxel-runner /opt/pixxel-runner
# A ledger that is named must exist: a container that was started without its volume refuses to buy everything again.
ENV PATH=/opt/pixxel-runner/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PIXXEL_RUNNER_LEDGER=/data/ledger.db
# Results files go to the working directory.
WORKDIR /data
USER 10001:10001
# No shell between: signals reach the program, which ends a run by its rules.
ENTRYPOINT ["pixxel-runner"]
CMD ["--help"]
