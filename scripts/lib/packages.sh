# Installs what a script needs. Sourced. A script first says what it needs, then calls install_needed:
#
#   command -v openssl >/dev/null || need "certificates for tests" openssl
#   install_needed
#
# No package starts a service (lib/apt-install), and what would still leave a service behind is unpacked beside the build instead of
# installed (lib/unpack).
# shellcheck shell=bash
# shellcheck source=scripts/lib/base.sh
. "$(dirname "${BASH_SOURCE[0]}")/base.sh"
# Programs that were unpacked are found before others.
export PATH=$target/tools/bin:$PATH

lines=() packages=() programs=()

# need WHY PACKAGE..: these packages of Debian are missing.
need() {
  lines+=("apt-get install ${*:2}: $1")
  packages+=("${@:2}")
}

# need_program WHY PROGRAM PACKAGE[,OTHER]: this program is missing; its package is unpacked, not installed.
need_program() {
  lines+=("unpack ${3%,*} into ${target#"$PWD/"}/tools: $1")
  programs+=("$2=$3")
}

# install_needed: says what is missing and why, a line each, and installs it. Does nothing if nothing is missing.
install_needed() {
  ((${#lines[@]})) || return 0
  say "this machine lacks:"
  printf '  %s\n' "${lines[@]}" >&2
  command -v apt-get >/dev/null || fail "there is no apt-get here; please install this by hand, and start again"
  if ((${#packages[@]})); then
    local as_root=()
    if [ "$(id -u)" != 0 ]; then
      command -v sudo >/dev/null || fail "please run as root: scripts/lib/apt-install ${packages[*]}"
      as_root=(sudo)
    fi
    "${as_root[@]}" scripts/lib/apt-install "${packages[@]}" >&2 || fail "apt-get failed; please install by hand: ${packages[*]}"
  fi
  if ((${#programs[@]})); then
    scripts/lib/unpack "${programs[@]}" >&2 || fail "please install by hand, so that PATH leads to it: ${programs[*]%%=*}"
  fi
  lines=() packages=() programs=()
}

# python_programs NAME [PYTHON]: installs the programs in scripts/NAME.d/requirements.txt from PyPI into an environment of their own, unless
# they are there, and sets `venv` to its folder of programs. PYTHON is python3 unless it is given.
python_programs() {
  local requirements=scripts/$1.d/requirements.txt environment=$target/tools/$1 python=${2:-python3}
  "$python" -c 'import ensurepip, venv' 2>/dev/null || need "programs from PyPI" python3 python3-venv
  install_needed
  venv=$environment/bin
  if ! cmp -s "$requirements" "$environment/requirements.txt"; then
    say "installing from PyPI into ${environment#"$PWD/"}: $(sed -n '1s/^# //p' "$requirements")"
    rm -rf "$environment"
    "$python" -m venv "$environment"
    "$venv/pip" install --quiet --disable-pip-version-check --no-compile --requirement "$requirements"
    cp "$requirements" "$environment/requirements.txt"
  fi
}
