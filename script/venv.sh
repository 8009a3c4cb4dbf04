# Sourced by the scripts beside it: virtual environments that hold exactly what a file pins.
# shellcheck shell=bash

say() { printf '\n== %s\n' "$*" >&2; }
die() { printf '%s: cannot %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Debian's packages, for what is missing on a fresh machine.
apt_install() { # apt_install PACKAGE
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || die "install the package $1: not root, or not Debian"
  say "installing the package $1"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1"; } >&2
}

make_venv() { # make_venv DIR
  local python=${PYTHON:-python3}
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    die "go on with '$python': Python 3.11 or later is needed (name one with PYTHON=…)"
  # Debian ships this module apart from the interpreter.
  "$python" -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
  "$python" -m venv "$1"
}

# Bring DIR to what REQUIREMENTS pins; nothing to do when that was done before.
sync_venv() { # sync_venv DIR REQUIREMENTS
  local venv=$1 requirements=$2 stamp
  stamp=$venv/.has-$(sha256sum "$requirements" | cut -c1-16)
  [ -e "$stamp" ] && return
  say "installing $requirements into $venv"
  [ -x "$venv/bin/python" ] || make_venv "$venv"
  # Compiled at once: without .pyc files each later start takes seconds longer.
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --compile --require-hashes -r "$requirements"
  touch "$stamp"
}

# Install this checkout into DIR, so that an edit is in force at once.
install_checkout() { # install_checkout DIR
  local venv=$1 stamp
  stamp=$venv/.runs-$(cat pyproject.toml src/jobworker/__init__.py <(pwd) | sha256sum | cut -c1-16)
  [ -e "$stamp" ] && return
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
  touch "$stamp"
}
