#!/bin/sh
# Every test on another Debian, in one command:
#
#   tests/debian.sh bookworm|trixie [user] [TESTS]      or: make test-debian RELEASE=trixie [ORDINARY=1] [TESTS=tests/unit]
#
# As root. A small Debian is made once (debootstrap) in /var/cache/lbadaptor-test/RELEASE, and kept; `rm -rf` removes it.
# The checkout is copied into it, and there README's `make test` runs, as root or as an ordinary user; the exit status
# is its. Mounts and processes are in namespaces of their own, so that nothing stays mounted or running, however this
# ends. apt and pip take packages from where this machine's do, through its proxy and with its certificates.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
[ -n "${1:-}" ] || { echo "Which Debian? tests/debian.sh bookworm, or make test-debian RELEASE=trixie" >&2 && exit 1; }
release=$1
as=root
[ "${2:-}" != user ] || { as=tester && shift; }
tests=${2:-tests}
cache=${CACHE:-/var/cache/lbadaptor-test}
root=$cache/$release

if [ "$(id -u)" != 0 ]; then
    echo "Only root can make another Debian: as root, make test-debian RELEASE=$release" >&2
    exit 1
fi
if [ -z "${IN_NAMESPACES:-}" ]; then
    mkdir -p "$cache"
    [ "$as" = root ] || set -- "$release" user "$tests"
    exec env IN_NAMESPACES=1 flock --no-fork "$cache" \
        unshare --mount --propagation private --pid --fork --kill-child -- tests/debian.sh "$@"
fi

# The Debian itself.

if ! [ -e "$root/made" ]; then
    if ! command -v debootstrap >/dev/null; then
        apt-get update
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends debootstrap debian-archive-keyring
    fi
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 'Component: main' |
        head -n 1)
    rm -rf "$root"
    mkdir -p "$root"
    debootstrap --variant=minbase --include=ca-certificates,git,make,python3 "$release" "$root" $mirror
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # no package starts a server
    chmod 755 "$root/usr/sbin/policy-rc.d"
    chroot "$root" useradd --create-home --shell /bin/sh tester
    touch "$root/made"
fi

mount --bind "$root" "$root" # or nobody within could have a mount namespace of its own (unshare(1))

# What this machine says about the network, and what files and folders that names.

settings=$(/usr/bin/python3 -I apache/pip_settings.py | sed 's/^export //')
names='https?_proxy|no_proxy|all_proxy|ssl_cert_(file|dir)|requests_ca_bundle|curl_ca_bundle'
set -- PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
eval "set -- \"\$@\" $(printf '%s' "$settings" | tr '\n' ' ')"
while IFS= read -r pair; do
    [ -z "$pair" ] || set -- "$@" "$pair"
done <<END
$(env | grep -Ei "^($names)=" || true)
END
apt-config dump | grep -E '^Acquire::(http|https|ftp)::.' >"$root/etc/apt/apt.conf.d/50machine" || true
cp /etc/resolv.conf /etc/hosts "$root/etc"
for pair in "$@" "$(cat "$root/etc/apt/apt.conf.d/50machine")"; do
    for word in ${pair#*=}; do
        path=$(printf '%s' "$word" | sed -E 's/^"//; s/";?$//; s#^file://##; s#/simple/?$##')  # an index's files are beside it (PEP 503)
        case $path in
            /usr/* | /bin* | /sbin*) ;;
            /etc/ssl/certs) cp -RL "$path/." "$root$path" 2>/dev/null || true ;;
            /*)
                if [ -d "$path" ]; then
                    mkdir -p "$root$path"
                    mount --bind -o ro "$path" "$root$path"
                elif [ -f "$path" ]; then
                    mkdir -p "$root${path%/*}"
                    cp -L "$path" "$root$path"
                fi
                ;;
        esac
    done
done

# A run of the tests as README says it.

mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"

# The checkout into a folder of a user's, of which only .venv is kept from the last time; new times have it set up anew.
renew() {
    mkdir -p "$root$1"
    find "$root$1" -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +
    tar -c --exclude=./.venv --exclude=./.git --exclude=__pycache__ --exclude='./.*_cache' . | tar -x -m --no-same-owner -C "$root$1"
}
inside() {
    folder=$1
    shift
    chroot "$root" env -C "$folder" -i "$@"
}

renew /srv/lbadaptor
if [ "$as" = root ]; then
    inside /srv/lbadaptor HOME=/root "$@" make test TESTS="$tests"
else # root installs Debian's packages, and that is all of root's part
    inside /srv/lbadaptor HOME=/root "$@" make .venv/ready-test
    renew /home/tester/lbadaptor
    chown -R --reference="$root/home/tester" "$root/home/tester/lbadaptor"
    inside /home/tester/lbadaptor HOME=/home/tester "$@" \
        setpriv --reuid=tester --regid=tester --init-groups make test TESTS="$tests"
fi
