#!/bin/sh
# Boots systemd in namespaces of its own, on a copy of this machine's root folder that is in memory (overlayfs). A
# reboot boots it again with the same files. Nothing of this machine is changed, and nothing stays mounted or running
# when this script is ended.
#
#   tests/apache/boot.sh STAGE ENVIRONMENT
#
# As root. STAGE is an empty folder for mounts. What is in STAGE.files is copied into the root folder, and its
# /install.sh is run there before the first boot. ENVIRONMENT is the environment folder that becomes /opt/lbadaptor.
set -eu
stage=$1
environment=$2
self=$(readlink -f "$0")
path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

case ${STEP:-mounts} in
    mounts)
        STEP=cgroup exec unshare --mount --propagation private -- "$self" "$@"
        ;;
    cgroup) # one of its own in the unified hierarchy; systemd takes it for the root of all
        mount -t cgroup2 cgroup2 "$stage"
        cgroup=$stage/lbadaptor-test-$$
        mkdir "$cgroup"
        end() {
            echo $$ >"$stage/cgroup.procs"
            echo 1 >"$cgroup/cgroup.kill"
            wait
            until find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null; do sleep 0.05; done
        }
        trap end EXIT
        trap 'exit 143' TERM INT HUP
        echo $$ >"$cgroup/cgroup.procs"
        STEP=files unshare --mount --cgroup -- "$self" "$@" &
        echo $$ >"$stage/cgroup.procs"
        wait $!
        ;;
    files)
        umount "$stage"
        mount -t tmpfs -o mode=755 tmpfs "$stage"
        overlay() { # OVER NAME: what is written to a folder goes into memory
            mkdir -p "$stage/$2" "$stage/$2.new" "$stage/$2.work"
            mount -t overlay overlay -o "lowerdir=$1,upperdir=$stage/$2.new,workdir=$stage/$2.work" "${3:-$stage/$2}"
        }
        overlay / root
        cd "$stage/root"
        # None of this machine's own units and mounts: systemd finds those that it brings, and the test's.
        rm -rf etc/systemd etc/fstab etc/tmpfiles.d etc/sysusers.d opt/lbadaptor
        mkdir -p opt/lbadaptor
        overlay "$environment" environment opt/lbadaptor
        sed -i '1s|.*|#!/opt/lbadaptor/bin/python|' opt/lbadaptor/bin/lbmonitor opt/lbadaptor/bin/lbctl
        cp -R "$stage.files/." .
        chroot . env -i PATH="$path" sh -eu /install.sh
        while
            code=0
            STEP=boot unshare --mount --pid --fork --kill-child --uts --ipc --net -- "$self" "$@" || code=$?
            [ $code = 129 ] # SIGHUP: how reboot(2) ends a pid namespace
        do :; done
        exit $code
        ;;
    boot)
        cd "$stage/root"
        mount -t proc proc proc
        mount --bind -o ro proc/sys proc/sys
        mount -t sysfs -o ro sysfs sys
        mount -t cgroup2 cgroup2 sys/fs/cgroup
        mount -t tmpfs -o mode=755 tmpfs dev
        for name in null zero full random urandom tty; do
            touch "dev/$name"
            mount --bind "/dev/$name" "dev/$name"
        done
        mkdir dev/pts dev/shm
        mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
        ln -s pts/ptmx dev/ptmx
        ln -s /proc/self/fd dev/fd
        mount -t tmpfs -o mode=1777 tmpfs dev/shm
        mount -t tmpfs -o mode=755 tmpfs run
        mount -t tmpfs -o mode=1777 tmpfs tmp
        mkdir run/before
        pivot_root . run/before
        umount -l /run/before
        rmdir /run/before
        exec env -i container=lbadaptor-test PATH="$path" /lib/systemd/systemd --system --unit=test.target
        ;;
esac
