# In the testbed: boots a guest under each monitor that is asked for ($*), with the same kernel and root, over the same
# tap, and lets it talk to an iperf3 on this side. Prints `monitor NAME`, then `load JOB MEGABYTES-A-SECOND`.
set -u
kernel=$HV_TEST_KERNEL
words="console=ttyS0 quiet reboot=k panic=-1 root=/dev/vda ro init=/bench/init bench=/bench/net.sh"
cat /dev/nvme2n1 >/dev/null
mkdir -p /mnt/bench
mount -o ro /dev/nvme2n1 /mnt/bench
mount --bind /dev /mnt/bench/dev
mount -t proc proc /mnt/bench/proc
mount --bind /hv /mnt/bench/hv
mount -t tmpfs tmp /mnt/bench/tmp
ip tuntap add tap0 mode tap
ip addr add 192.0.2.1/24 dev tap0
ip link set tap0 up

firecracker() { # OPTIONS...
    cat >/tmp/firecracker.json <<JSON
{ "boot-source": { "kernel_image_path": "$kernel", "boot_args": "$words" },
  "drives": [
    { "drive_id": "root", "path_on_host": "/dev/nvme2n1", "is_root_device": false, "is_read_only": true } ],
  "network-interfaces": [
    { "iface_id": "eth0", "host_dev_name": "tap0", "guest_mac": "02:00:00:00:00:02" } ],
  "machine-config": { "vcpu_count": 1, "mem_size_mib": 256 } }
JSON
    $limit firecracker "$@" --no-api --config-file /tmp/firecracker.json 2>&1 </dev/null
}

hv_net() { # OPTIONS...
    $limit hv vm --kernel "$kernel" --memory 256M --disk /dev/nvme2n1,ro --net tap=tap0 "$@" /hv/images/demo.erofs -- sh -c '
        mount -t ext4 -o ro /dev/vdb /mnt && for dir in dev proc sys; do mount --bind /$dir /mnt/$dir; done
        mount -t tmpfs tmp /mnt/tmp && chroot /mnt /bench/net.sh' 2>&1 </dev/null
}

# Of the emulated host's own time: a guest that does not end is a failure, not a wait.
limit="timeout -k 1 8"

for monitor in "$@"; do
    echo "monitor $monitor"
    chroot /mnt/bench iperf3 -s >/dev/null 2>&1 &
    server=$!
    case $monitor in
        hv-*) hv_net --transport "${monitor#hv-}" ;;
        firecracker) firecracker ;;
        firecracker-pci) firecracker --enable-pci ;;
        qemu-microvm)
            $limit chroot /mnt/bench qemu-system-x86_64 -M microvm,acpi=on -accel kvm -cpu host -m 256 -smp 1 \
                -nodefaults -no-user-config -display none -no-reboot -serial stdio \
                -kernel "$kernel" -append "$words" \
                -drive if=none,id=root,file=/dev/nvme2n1,format=raw,readonly=on \
                -device virtio-blk-device,drive=root \
                -netdev tap,id=net,ifname=tap0,script=no,downscript=no \
                -device virtio-net-device,netdev=net,mac=02:00:00:00:00:02 2>&1 </dev/null
            ;;
    esac
    kill $server
    wait $server 2>/dev/null
done
