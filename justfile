# What one types often. `just --list` shows it.

# The server, with nothing to set up
dev:
    cargo run -p todo-server -- dev

# All tests, with all that they need
test *args:
    scripts/test {{args}}

# What a change has to pass before anybody looks at it
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps

# Each feature by itself
features:
    cargo hack check --workspace --exclude todo-server --each-feature --no-dev-deps
    cargo hack check --package todo-server --feature-powerset --depth 2 --at-least-one-of axum,poem,warp --exclude-features default --no-dev-deps

# Weakens each SQL statement, and shows which test notices
isolation:
    scripts/test -p todo-core --lib isolation -- --nocapture

# Whether a page costs the same with ten million tasks; ten minutes and 6 GB
growth:
    cargo bench -p todo-benches --bench growth -- --full

# The page, the sign-in and the server, in a real browser
e2e:
    scripts/test-e2e

# The document, and the types that are made from it
openapi:
    cargo run -p todo-server -- openapi > openapi.json
    npm --prefix examples/nextjs run types

# The server against its document
schemathesis *args:
    scripts/schemathesis {{args}}

# What becomes of acknowledged writes when things break; 50 minutes, or two with --short
drill *args:
    scripts/drill {{args}}

# Licences, sources, bans and advisories of dependencies
deny *args:
    scripts/check-dependencies {{args}}

# The four packages, as a registry would get them
package:
    scripts/check-package

# Whether the version says enough for what has changed
semver *args:
    scripts/check-semver {{args}}

# Dockerfile, compose file, systemd, Kubernetes
deploy:
    scripts/check-deploy

# The image, built and run as it is meant to be; a release build
image *args:
    scripts/image {{args}}

# docs/backup.md, carried out
backup *args:
    scripts/check-backup {{args}}
# Runs a fuzz target for some seconds; see scripts/fuzz
fuzz target *args:
    scripts/fuzz {{target}} {{args}}

# A picture of the documentation, and whom the page asks
screenshot-docs *args:
    scripts/screenshot-docs {{args}}

# The server against hand-written programs, with a thousand users at once; see benches/README.md
load *args:
    cargo bench -p todo-benches --bench load -- {{args}}
