#!/bin/bash
# A systemd of a test's own: the user's, started as root in namespaces where it sees no other process and its control
# groups only, so that nothing of the machine's is touched. It ends, with all that it has started, when this ends.
#   unshare --mount --pid --fork --kill-child tests/systemd_stage.sh DIRECTORY GROUP
set -eu
directory=$1 group=$2
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
if [ "${3:-}" != inside ]; then
    mkdir "/sys/fs/cgroup/$group"
    echo 0 >"/sys/fs/cgroup/$group/cgroup.procs"
    exec unshare --cgroup --mount "$0" "$directory" "$group" inside
fi
# What systemd looks for before it takes itself for a service manager, and what it hides files behind.
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/systemd/inaccessible/dir
touch /run/systemd/inaccessible/reg
mknod /run/systemd/inaccessible/chr c 0 0
mknod /run/systemd/inaccessible/blk b 0 0
mkfifo /run/systemd/inaccessible/fifo
chmod 0 /run/systemd/inaccessible/*
export XDG_RUNTIME_DIR="$directory/run" XDG_CONFIG_HOME="$directory/config" HOME="$directory"
export SYSTEMD_UNIT_PATH="$directory/units"
# It refuses to be process 1.
/lib/systemd/systemd --user &
wait $!
