#!/bin/sh
# The testbed's PID 1: makes a host out of the bare machine, runs /hv/testbed/command with its three
# streams on virtio-serial ports 1 to 3, and reports on port 4. Its own messages go to the serial console.
export PATH=/hv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8

mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mkdir -p /dev/pts /dev/shm /dev/mqueue /dev/net
mount -t devpts -o nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev shm /dev/shm
mount -t mqueue -o nosuid,nodev,noexec mqueue /dev/mqueue
mount -t tmpfs -o nosuid,nodev,mode=755 run /run
mount -t tmpfs -o nosuid,nodev,mode=1777 tmp /tmp
mount -t debugfs debugfs /sys/kernel/debug
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control
done
ln -sfn /proc/self/fd /dev/fd
ln -sfn /proc/self/fd/0 /dev/stdin
ln -sfn /proc/self/fd/1 /dev/stdout
ln -sfn /proc/self/fd/2 /dev/stderr
# Opening one of these loads its module.
[ -e /dev/loop-control ] || mknod -m 660 /dev/loop-control c 10 237
[ -e /dev/fuse ] || mknod -m 666 /dev/fuse c 10 229
[ -e /dev/net/tun ] || mknod -m 666 /dev/net/tun c 10 200
modprobe -a virtio_pci virtio_console kvm_amd
[ -e /dev/kvm ] || echo "testbed: no /dev/kvm: kvm_amd did not load"
# The first virtual machine to be made and the last to go make the kernel rewrite its scheduler while it runs,
# which an emulator with one thread a processor may miss: QEMU 7.2 was seen to keep the translation of a
# breakpoint that was gone, for ever. So one machine that never runs stays from start to end.
if [ "$(nproc)" -gt 1 ]; then
    # KVM_CREATE_VM, KVM_CREATE_IRQCHIP, KVM_CREATE_VCPU.
    perl -e 'open(K, "+<", "/dev/kvm") or die "no /dev/kvm: $!";
        my $vm = ioctl(K, 0xAE01, 0) or die "KVM_CREATE_VM: $!"; open(V, "+<&=", int($vm)) or die $!;
        ioctl(V, 0xAE60, 0) or die "KVM_CREATE_IRQCHIP: $!"; ioctl(V, 0xAE41, 0) or die "KVM_CREATE_VCPU: $!";
        $SIG{TERM} = "IGNORE"; print "testbed: keeps one VM\n"; sleep' &
    tries=0
    while [ ! -d /sys/kernel/debug/kvm/$!-* ] && [ "$tries" -lt 100 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done 2> /dev/null
fi
ip link set lo up
hostname testbed
cat /proc/uptime > /run/testbed-uptime

# The ports appear as soon as the driver has talked to the device.
tries=0
while [ ! -c /dev/vport0p4 ] && [ "$tries" -lt 200 ]; do
    sleep 0.05
    tries=$((tries + 1))
done
mkdir /run/testbed
mkfifo /run/testbed/in /run/testbed/out /run/testbed/err
cat < /dev/vport0p1 > /run/testbed/in &
cat_in=$!
cat < /run/testbed/out > /dev/vport0p2 &
cat_out=$!
cat < /run/testbed/err > /dev/vport0p3 &
cat_err=$!
echo started > /dev/vport0p4
cd /root
setsid /bin/sh /hv/testbed/command < /run/testbed/in > /run/testbed/out 2> /run/testbed/err &
wait $!
status=$?
kill $cat_in
# All that was written arrives before the status does. A process left behind may hold a pipe open
# for ever: it gets five seconds.
tries=0
while kill -0 $cat_out || kill -0 $cat_err; do
    [ "$tries" -lt 100 ] || break
    sleep 0.05
    tries=$((tries + 1))
done 2> /dev/null
echo "exit $status" > /dev/vport0p4
# xtask ends the machine now; this is for when it has gone away.
sleep 5
echo o > /proc/sysrq-trigger
sleep 60
