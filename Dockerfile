# One image for every process of the service; the command is the name of a process in `entrypoint`.
FROM python:3.13-slim-trixie AS builder
WORKDIR /source
RUN python -m venv --without-pip /opt/coupons
COPY requirements.lock requirements-dev.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/coupons install --require-hashes --only-binary :all: --requirement requirements.lock
# The build tools are locked, too: hatchling and everything it requires; a test checks that this list is complete.
RUN --mount=type=cache,target=/root/.cache/pip \
    sed -nE '/^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/,/[^\\]$/p' requirements-dev.lock > build.lock \
    && pip install --require-hashes --only-binary :all: --requirement build.lock
COPY pyproject.toml README.md celeryconfig.py ./
COPY docs/runbooks docs/runbooks
COPY service service
COPY workers workers
RUN hatchling build --target wheel --directory /wheel \
    && pip --python /opt/coupons install --no-deps --no-index /wheel/*.whl

FROM python:3.13-slim-trixie
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin coupons \
    && install --directory --owner=coupons --mode=700 /var/lib/flower
COPY --from=builder /opt/coupons /opt/coupons
COPY --chmod=755 entrypoint /usr/local/bin/
ENV PATH=/opt/coupons/bin:$PATH \
    PYTHONUNBUFFERED=1
WORKDIR /srv
# Flower reads this file in its working directory; without it, it would show /metrics to everyone.
COPY flowerconfig.py ./
USER 10001
ENTRYPOINT ["entrypoint"]
CMD ["api"]
