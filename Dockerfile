# todo-server as an image: docker build --tag todo-server .
#
# scripts/image builds the image, runs it and tests it. deploy/ has the configurations that run it.

FROM docker.io/library/rust:1.95-slim-trixie AS build
# jemalloc is built with make.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# In addition to axum: other frameworks for FRAMEWORK, and traces (OpenTelemetry).
ARG FEATURES=otel,poem,warp
# The build cache keeps dependencies. The files of this project are touched, because cargo compares times: a file may be older than a
# build of other sources in the cache.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target,sharing=locked \
    find . -path ./target -prune -o -type f -exec touch {} + \
    && cargo build --locked --release --package todo-server --features "$FEATURES" \
    && install -D target/release/todo-server /made/todo-server \
    && mkdir /made/data

# Contains glibc, libgcc and root certificates (for PostgreSQL and key servers), but no shell and no package manager. Its Debian version is
# that of the build.
FROM gcr.io/distroless/cc-debian13:nonroot
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="todo-server" \
      org.opencontainers.image.description="A secure multi-user todo API" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /made/todo-server /usr/local/bin/todo-server
# The folder of the SQLite file, unless DATABASE_URL is set. The server writes nothing else.
COPY --from=build --chown=65532:65532 /made/data /data
WORKDIR /data
VOLUME /data
# A number, because runAsNonRoot of Kubernetes does not accept a name.
USER 65532:65532
ENV HOST=0.0.0.0
EXPOSE 8000
STOPSIGNAL SIGTERM
# It does not ask the database: a restart would not help if that is down, and a database that sleeps would never sleep.
HEALTHCHECK --interval=10s --timeout=6s --start-period=20s --retries=3 CMD ["todo-server", "healthcheck", "--live"]
ENTRYPOINT ["todo-server"]
