#!/bin/sh
# Sets up what `make demo`, `make machines-demo`, `make test` and `make bench` need: Debian's packages (as root), the
# environment folder and mod_wsgi. For the bench also the servers that it compares with, as far as they can be installed.
#
#   apache/install.sh demo|machines-demo|test|bench
#
# PYTHON names the Python to use. The default is Debian's own, which Debian's mod_wsgi is linked to. Other
# variables for Python in the caller's environment (PYTHONPATH …) are for the AppServers and are ignored here. So
# are pip settings of other installations (PIP_TARGET, `user = true` in a pip.conf …). Settings of an index,
# certificates and a proxy are used.
set -eu
what=$1
unset CDPATH
cd "$(dirname "$0")/.."
python=${PYTHON:-}
unset $(env | sed -n 's/^\(PYTHON[A-Za-z0-9_]*\)=.*/\1/p') PYTHON
env=.venv
log=$env.log

say() { printf '%s\n' "$*"; }
fail() {
    say "$*" >&2
    rm -f "$log"
    exit 1
}
root() { [ "$(id -u)" = 0 ]; }

# Run a command quietly. Show a text and how long the command has run; show its output only if it fails.
step() {
    text=$1
    shift
    "$@" >"$log" 2>&1 </dev/null &
    job=$!
    trap 'kill $job 2>/dev/null || true; rm -f "$log"; exit 130' INT TERM HUP
    seconds=0
    while kill -0 $job 2>/dev/null; do
        [ -t 1 ] && printf '\r  %s … %d s ' "$text" $seconds
        [ -t 1 ] || [ $((seconds % 30)) -ne 0 ] || say "  $text … $seconds s"
        seconds=$((seconds + 1))
        sleep 1
    done
    if wait $job; then
        [ -t 1 ] && printf '\r'
        say "  $text … done in $seconds s"
        rm -f "$log"
    else
        [ -t 1 ] && say
        tail -n 40 "$log" >&2
        fail "  $text … failed; that was the end of its output"
    fi
    trap - INT TERM HUP
}

installed() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q ' installed$'; }

# Print the Debian packages that are missing, among those named.
missing() {
    for package in "$@"; do
        installed "$package" || printf ' %s' "$package"
    done
}

good() { "$1" -I -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }

packages="libapache2-mod-wsgi-py3 python3-venv"
[ "$what" != machines-demo ] || packages="$packages haproxy"
[ "$what" != test ] || packages="$packages apache2-dev python3-dev gcc systemd curl haproxy iproute2"
[ "$what" != bench ] || packages="$packages wrk haproxy uwsgi uwsgi-plugin-python3 libapache2-mod-passenger"
lacking=
if command -v dpkg-query >/dev/null; then
    lacking=$(missing $packages)
    if [ -n "$lacking" ] && root; then
        step "reading Debian's list of packages" apt-get update
        DEBIAN_FRONTEND=noninteractive step "installing$lacking" apt-get install -y --no-install-recommends $lacking
    elif [ -n "$lacking" ] && [ "$what" = test ]; then
        fail "The tests need packages that only root can install: apt-get install --no-install-recommends$lacking"
    elif [ -n "$lacking" ] && [ "$what" = bench ]; then
        say "  What is missing will be named as absent; only root can: apt-get install --no-install-recommends$lacking"
    fi
elif [ "$what" = test ]; then
    fail "The tests need Debian's packages $packages; this system has no dpkg."
fi

if [ -z "$python" ]; then
    for candidate in /usr/bin/python3 python3 python3.13 python3.12 python3.11 python3.10; do
        if command -v "$candidate" >/dev/null && good "$candidate"; then
            python=$candidate
            break
        fi
    done
fi
[ -n "$python" ] || fail "Python 3.10 or newer with its venv module is needed: ask the administrator for: apt-get install$lacking"
good "$python" || fail "$python is not a Python of version 3.10 or newer with its venv module."

pip() { "$env/bin/python" -I -m pip --disable-pip-version-check --no-input "$@"; }
install() { pip install --no-cache-dir --no-build-isolation "$@"; }

if ! [ -x "$env/bin/python" ] || ! good "$env/bin/python"; then
    step "making the environment folder $env" "$python" -I -m venv --clear "$env"
fi

settings=$("$env/bin/python" -I apache/pip_settings.py) || fail "pip's settings cannot be read."
unset $(env | sed -n 's/^\(PIP_[A-Za-z0-9_]*\)=.*/\1/p') PIP_CONFIG_FILE
eval "$settings"
export PIP_CONFIG_FILE=/dev/null # the settings that hold are in the environment now

"$env/bin/python" -I -c 'import setuptools, wheel' 2>/dev/null ||
    step "installing setuptools" pip install --no-cache-dir "setuptools>=68" wheel

# Build from a copy, so that the build leaves no files in the checkout.
rm -rf "$env/src"
mkdir "$env/src"
cp -R setup.cfg pyproject.toml README.md LICENSE lbadaptor monitor apache "$env/src"
find "$env/src" -name __pycache__ -prune -exec rm -rf {} +
case $what in
    demo | machines-demo) extras=demo ;;
    *) extras="demo,$what" ;;
esac
step "installing lbadaptor and what it needs" install "$env/src[$extras]"
step "installing lbadaptor as it is now" install --no-deps --force-reinstall "$env/src"
rm -rf "$env/src"

# Debian's apache2 holds its configuration, apache2ctl and a2enmod. To install it would start a server.
unpack_apache() {
    rm -rf "$env/apache2"
    mkdir "$env/apache2"
    (
        cd "$env/apache2"
        apt-get download apache2 || { apt-get update && apt-get download apache2; }
        dpkg-deb -x apache2_*.deb .
    )
}

if [ "$what" = test ]; then
    [ -x "$env/apache2/usr/sbin/a2enmod" ] || step "unpacking Debian's apache2" unpack_apache
    "$env/bin/python" -I -c 'import mod_wsgi' 2>/dev/null || step "building mod_wsgi" install mod_wsgi
elif ! "$env/bin/python" -I -m monitor.demo.httpd >/dev/null 2>&1; then
    # No mod_wsgi that fits this Python: build one, with its own httpd if there is none.
    root && fail "$("$env/bin/python" -I -m monitor.demo.httpd 2>&1)"
    if ! command -v cc >/dev/null || ! command -v make >/dev/null; then
        fail "Apache httpd with mod_wsgi is missing, and no compiler to build it: ask the administrator for: apt-get install$lacking"
    elif [ -x /usr/sbin/apache2 ] && command -v apxs >/dev/null; then
        step "building mod_wsgi" install mod_wsgi
    else
        step "building Apache httpd (this takes minutes)" install mod_wsgi-httpd
        step "building mod_wsgi" install mod_wsgi-standalone
    fi
fi
