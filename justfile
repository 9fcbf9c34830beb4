# The commands of a developer: `just --list`. Each is one command that also works without just.

# Start the server without any configuration
dev:
    cargo run -p todo-server -- dev

# Install what the tests need and this machine lacks
setup:
    scripts/setup

# Run all tests; arguments are for cargo test
test *args:
    scripts/test {{args}}

# Check format, lints and documentation: the minimum before a commit
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps

# Run everything that CI runs
ci:
    .ci/run

# Check the packages without their features, and with each alone
features:
    scripts/check-features

# Weaken each SQL statement, and show which test fails
isolation:
    scripts/test -p todo-core --lib isolation -- --nocapture

# Remove row-level security, the predicates, and both; show which test fails
row-security:
    scripts/test -p todo-core --test postgres_row_security each_work_alone -- --nocapture

# Run the web app, Better Auth and the server in a browser
e2e *args:
    scripts/test-e2e {{args}}

# Write openapi.json and the TypeScript types made from it
openapi:
    cargo run -p todo-server -- openapi > openapi.json
    npm --prefix examples/nextjs run types

# Test the server against openapi.json; arguments: framework, database
schemathesis *args:
    scripts/schemathesis {{args}}

# Kill and cut off servers and databases under load; 60 minutes, or two with --short
drill *args:
    scripts/drill {{args}}

# Clients with RxDB change the same tasks, offline and through failures, until all copies are equal
sync *args:
    scripts/check-sync {{args}}

# Two users at once use the tools for assistants
mcp:
    scripts/check-mcp

# Back up, destroy and restore databases under load, as docs/backup.md says
backup *args:
    scripts/check-backup {{args}}

# Run a fuzz target for some seconds; keep: update its seeds
fuzz target *args:
    scripts/fuzz {{target}} {{args}}

# Check licences, sources, bans and advisories of dependencies
deny *args:
    scripts/check-dependencies {{args}}

# Check the contents of the four packages, and that they compile
package:
    scripts/check-package

# Compare the public API with the last release
semver *args:
    scripts/check-semver {{args}}

# Check Dockerfile, compose file, systemd unit, Kubernetes manifest and shell scripts
deploy:
    scripts/check-deploy

# Build the image, run it and the compose file, and test both
image *args:
    scripts/image {{args}}

# Put another version of Swagger UI into todo-core
swagger-ui version:
    scripts/update-swagger-ui {{version}}

# Take a picture of /docs, and check that the page loads nothing from other servers
screenshot-docs *args:
    scripts/screenshot-docs {{args}}

# Compare the server with hand-written programs under load; see benches/README.md
load *args:
    cargo bench -p todo-benches --bench load -- {{args}}

# Compare the cost of a page at 10 million tasks with a small table; 10 minutes, 6 GB
growth:
    cargo bench -p todo-benches --bench growth -- --full
