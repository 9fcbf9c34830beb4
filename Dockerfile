# todo-server as an image: docker build --tag todo-server .
#
# scripts/image builds it, runs it as it is meant to be run, and looks at what it does. deploy/ has what runs it.

FROM docker.io/library/rust:1.95-slim-trixie AS build
# jemalloc is built with make.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# Beside axum: other frameworks for FRAMEWORK, and traces to a collector.
ARG FEATURES=otel,poem,warp
# Dependencies stay built in a cache of the engine. Not so what is ours: cargo goes by times, and a file may be older than a build of
# other sources that has left its result in the cache.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target,sharing=locked \
    find . -path ./target -prune -o -type f -exec touch {} + \
    && cargo build --locked --release --package todo-server --features "$FEATURES" \
    && install -D target/release/todo-server /made/todo-server \
    && mkdir /made/data

# glibc, libgcc and the roots that certificates of PostgreSQL and of key sets are checked with, and nothing else: no shell, no
# package manager. Its Debian is that of the build.
FROM gcr.io/distroless/cc-debian13:nonroot
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="todo-server" \
      org.opencontainers.image.description="A secure multi-user todo API" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /made/todo-server /usr/local/bin/todo-server
# Where the SQLite file is, unless DATABASE_URL says something else. Nothing else is ever written.
COPY --from=build --chown=65532:65532 /made/data /data
WORKDIR /data
VOLUME /data
# By number, so that runAsNonRoot of Kubernetes can see it.
USER 65532:65532
ENV HOST=0.0.0.0
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=20s --retries=3 CMD ["todo-server", "healthcheck"]
ENTRYPOINT ["todo-server"]
