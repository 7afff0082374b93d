# The workbook in a container: locked packages, a user without rights, JupyterLab with a token.
# The tag of the base image is pinned to a release of Python and of Debian, not to a digest.

# What installs the packages stays in this stage.
FROM python:3.12-slim-bookworm AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /workbook
RUN python -m venv --without-pip /opt/cachelab

# The locks change seldom: they have their own layer. The driver of PostgreSQL is in CI's lock.
COPY requirements.txt requirements-ci.txt ./
RUN awk '/^[a-z]/ {taken = /^psycopg/} taken' requirements-ci.txt > requirements-postgresql.txt \
    && pip --python /opt/cachelab/bin/python install --require-hashes --no-deps \
        --only-binary=:all: -r requirements.txt -r requirements-postgresql.txt

COPY pyproject.toml README.md LICENSE LICENSE-CONTENT ./
COPY src src
RUN pip --python /opt/cachelab/bin/python install \
        --no-build-isolation --no-deps --no-index --editable .


FROM python:3.12-slim-bookworm
LABEL org.opencontainers.image.title="Cachelab" \
      org.opencontainers.image.description="The caching workbook: break a cache, see why it broke, fix it, prove the fix." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT AND CC-BY-4.0"

# 1000 is the first user of most Linux machines, so a mounted labs/ stays theirs. The wheel of nginx
# is for x86_64: elsewhere (a Mac with an Apple chip) Debian's is the edge of chapter 04, in
# whatever version this Debian has.
# hadolint ignore=DL3008
RUN useradd --create-home --uid 1000 learner \
    && install -d -o learner -g learner /workbook /workbook/.cachelab \
    && if [ "$(dpkg --print-architecture)" != amd64 ]; then \
        apt-get update \
        && apt-get install -y --no-install-recommends nginx-light \
        && rm -rf /var/lib/apt/lists/*; \
    fi

COPY --from=packages /opt/cachelab /opt/cachelab
WORKDIR /workbook
COPY --chown=learner:learner . .

USER 1000
ENV PATH=/opt/cachelab/bin:$PATH CACHELAB_CONTAINER=1 PYTHONUNBUFFERED=1
# The file system may be read-only later, and every kernel would compile the library again.
RUN python -m compileall -q src tools
EXPOSE 8888

# /api answers without a token, with the version only.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8888/api', timeout=2)"]

# CACHELAB_TOKEN is the token; without it one is made and shown in the log, and nobody comes in
# without a token.
CMD ["cachelab", "lab", "--no-browser", "--port=8888"]
