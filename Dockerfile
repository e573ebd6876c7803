# locomass in a container:  docker build -t locomass . && docker run --rm -v "$PWD":/data locomass run study.yaml --out results
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY pipeline pipeline
COPY predictors predictors
RUN python -m venv /opt/locomass && /opt/locomass/bin/pip install --no-cache-dir .

FROM python:3.12-slim
COPY --from=build /opt/locomass /opt/locomass
# compiled kernels are kept here; any user may write
ENV PATH=/opt/locomass/bin:$PATH NUMBA_CACHE_DIR=/tmp/numba MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /data
ENTRYPOINT ["locomass"]
CMD ["--help"]
