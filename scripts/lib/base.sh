# What all scripts share. Sourced; goes to the folder of the project.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# The folder of the build. Absolute, since some programs run in other folders.
target=${CARGO_TARGET_DIR:-target}
[[ $target == /* ]] || target=$PWD/$target
export CARGO_TARGET_DIR=$target

say() { echo "scripts/${0##*/}: $*" >&2; }
fail() { say "$*"; exit 1; }

# build_programs: builds all programs of the workspace, and sets TODO_SERVER unless it is set. The features are those of the tests:
# with others, cargo would build most dependencies a second time.
build_programs() {
  cargo build --locked --quiet --workspace --all-features --bins
  export TODO_SERVER=${TODO_SERVER:-$target/debug/todo-server}
}

# start_server LOG: starts $TODO_SERVER on a free port, and sets `server` (its process) and `url`.
start_server() {
  : >"$1"
  HOST=127.0.0.1 PORT=0 LOG_FORMAT=text "$TODO_SERVER" >"$1" 2>&1 &
  server=$!
  for _ in $(seq 200); do
    url=$(sed -nE 's/.*listening.*[^0-9](127\.0\.0\.1:[0-9]+).*/http:\/\/\1/p' "$1")
    [ -z "$url" ] || return 0
    kill -0 "$server" 2>/dev/null || break
    sleep 0.05
  done
  cat "$1" >&2
  fail "the server did not start"
}
