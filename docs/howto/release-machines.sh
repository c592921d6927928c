#!/bin/sh
# A release over several machines, one after the other. It stops at the first that fails.
#
#   release-machines.sh build/ web1 web2 web3
#
# Copies what is in the folder (with a slash at its end) to each machine, and replaces the AppServers there. The exit
# status is 0 if all machines have the release; else it is that of what failed (1 for a machine that is leaving), and
# standard error names the machines that have it, and those that do not. Nobody is logged out either way. SHOP names
# lbadaptor.toml, and FOLDER the application's folder, on the machines; WAIT is how many seconds a machine may take.
set -eu
[ $# -ge 2 ] || { echo "usage: release-machines.sh FOLDER/ MACHINE…" >&2 && exit 2; }
shop=${SHOP:-/etc/lbadaptor/shop.toml}
folder=${FOLDER:-/srv/shop/}
wait=${WAIT:-300}
build=$1
shift

# Whether all is well there, and the machine is not leaving. It would refuse `lbctl restart`, with the new code in
# place. `lbctl check` says that it is leaving, and is OK all the same.
ready() {
    failed=0
    # -n: ssh would read this script's standard input.
    said=$(ssh -n "root@$1" "/opt/lbadaptor/bin/lbctl --config $shop check") || failed=$?
    echo "$said"
    [ $failed = 0 ] || return $failed
    case $said in *"this machine is leaving"*)
        echo "$1 is leaving: give \`lbctl undrain --all\` there, or leave it out. Nothing was copied to it." >&2
        return 1
        ;;
    esac
}

release() {
    ready "$1" &&
        rsync -a --delete "$build" "root@$1:$folder" &&
        ssh -n "root@$1" "/opt/lbadaptor/bin/lbctl --config $shop restart --wait $wait"
}

released=
while [ $# -gt 0 ]; do
    echo "== $1"
    status=0
    release "$1" || status=$?
    if [ $status != 0 ]; then
        echo "The release failed at $1. They have it:${released:- none}. They do not:$(printf ' %s' "$@")." >&2
        exit $status
    fi
    released="$released $1"
    shift
done
