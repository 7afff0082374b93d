# The workbook in a container: locked packages, a user without rights, JupyterLab with a token.
FROM python:3.12-slim

# 1000 is the first user of most Linux machines, so a mounted labs/ stays theirs.
RUN useradd --create-home --uid 1000 learner && install -d -o learner -g learner /workbook
WORKDIR /workbook

# The locks change seldom: they have their own layer.
COPY requirements.txt ./
RUN pip install --no-cache-dir --require-hashes --no-deps --only-binary=:all: -r requirements.txt

COPY --chown=learner:learner . .
RUN pip install --no-cache-dir --no-build-isolation --no-deps --no-index -e .

USER learner
ENV CACHELAB_CONTAINER=1 PYTHONUNBUFFERED=1
EXPOSE 8888

# /api answers without a token, with the version only.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8888/api', timeout=2)"]

# CACHELAB_TOKEN must be set; without a token it does not start.
CMD ["python", "-m", "cachelab", "lab", "--no-browser", "--port=8888"]
