#!/bin/sh
# enter.sh ROOT BIN SCRIPT: runs SCRIPT of this directory in the Debian system at ROOT (a directory or a disk), as root, in
# namespaces and cgroups of its own: whatever an engine leaves (daemons, mounts, interfaces, rules, groups) ends with
# them. ROOT itself is not written to. BIN is the directory of hv. A microVM's kernel, if there is one, is HV_TEST_KERNEL.
set -eu
root=$1 bin=$2 script=$3
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

# The hierarchies of cgroups: number, controllers, mount point, type, and the directory of this process in it.
hierarchies() {
    while IFS=: read -r number controllers path; do
        case $controllers in
            '') wanted='- cgroup2 ' ;;
            *) wanted="- cgroup .*[, ]$controllers\(,\|\$\)" ;;
        esac
        at=$(grep -- "$wanted" /proc/self/mountinfo | cut -d ' ' -f 5 | head -n 1)
        [ -z "$at" ] || echo "$number ${controllers:-unified} $at ${path%/}"
    done < /proc/self/cgroup
}

if [ "${HV_CLIENTS_INSIDE:-}" = '' ]; then
    mine=hv-clients-$$
    dirs=$(hierarchies | while read -r _ controllers at path; do
        [ -d "$at$path" ] || path=''
        echo "$controllers $at$path/$mine"
    done)
    # A killed script leaves what nothing is in; whatever runs there still ends with its PID namespace.
    clean() {
        echo "$dirs" | while read -r _ dir; do
            tries=0
            while [ -d "$dir" ] && [ "$tries" -lt 50 ]; do
                find "$dir" -depth -type d -exec rmdir {} + 2> /dev/null || sleep 0.1
                tries=$((tries + 1))
            done
        done
    }
    trap clean EXIT
    HV_CLIENTS_GROUPS=$dirs HV_CLIENTS_INSIDE=processes unshare --mount --net --pid --ipc --uts --fork --kill-child \
        sh "$0" "$root" "$bin" "$script" < /dev/null
    exit
fi
if [ "$HV_CLIENTS_INSIDE" = processes ]; then
    # Nobody but this shell is in the groups: one that processes are in gives no controllers to groups below it.
    while read -r controllers dir; do
        mkdir "$dir"
        case $controllers in
            cpuset)
                cat "$dir/../cpuset.cpus" > "$dir/cpuset.cpus"
                cat "$dir/../cpuset.mems" > "$dir/cpuset.mems"
                ;;
        esac
        echo $$ > "$dir/cgroup.procs"
    done << END
$HV_CLIENTS_GROUPS
END
    HV_CLIENTS_INSIDE=groups exec unshare --cgroup sh "$0" "$root" "$bin" "$script"
fi

mount --make-rprivate /
work=$(mktemp -d)
mount -t tmpfs -o mode=755 clients "$work"
mkdir "$work/upper" "$work/work" "$work/root"
if [ -b "$root" ]; then
    mkdir "$work/disk"
    mount -o ro "$root" "$work/disk"
    root=$work/disk
fi
mount -t overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/work" clients "$work/root"
root=$work/root
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount --make-rslave "$root/dev"

# The same cgroup layout as outside, but its top is this namespace's own.
layout=$(hierarchies)
if [ "$(stat --file-system --format %T /sys/fs/cgroup)" = cgroup2fs ]; then
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    # A group that gives controllers to its children has no processes of its own.
    mkdir "$root/sys/fs/cgroup/init"
    echo $$ > "$root/sys/fs/cgroup/init/cgroup.procs"
    for name in $(cat "$root/sys/fs/cgroup/cgroup.controllers"); do
        echo "+$name" > "$root/sys/fs/cgroup/cgroup.subtree_control" 2> /dev/null || true
    done
else
    mount -t tmpfs -o mode=755 cgroup "$root/sys/fs/cgroup"
    echo "$layout" | while read -r _ controllers at _; do
        mkdir -p "$root$at"
        case $controllers in
            unified) mount -t cgroup2 cgroup2 "$root$at" ;;
            name=*) mount -t cgroup -o "none,$controllers" cgroup "$root$at" ;;
            *) mount -t cgroup -o "$controllers" cgroup "$root$at" ;;
        esac
    done
fi

mkdir -p "$root/hv/bin" "$root/hv/clients" "$root/var/lib/containers" "$root/old"
mount -t tmpfs -o mode=755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -t tmpfs -o mode=755 containers "$root/var/lib/containers"
mount -t tmpfs -o mode=755 cache "$root/var/cache"
mount --bind "$bin" "$root/hv/bin"
if [ -n "${HV_TEST_KERNEL:-}" ]; then
    touch "$root/hv/kernel"
    mount --bind "$HV_TEST_KERNEL" "$root/hv/kernel"
fi
mount --bind "$here" "$root/hv/clients"
for name in hv hv-oci hv-oci-vm; do
    ln -sf /hv/bin/hv "$root/usr/bin/$name"
done
cd "$root"
pivot_root . old
umount -l /old
ip link set lo up
exec tini -- sh "/hv/clients/$script"
