# In the testbed: boots a guest under each monitor that is asked for ($*), with the same kernel, root and data disk.
# Prints `monitor NAME` before what its guest prints.
set -u
kernel=$HV_TEST_KERNEL
data=/hv/data.img
words="console=ttyS0 quiet reboot=k panic=-1 root=/dev/vda ro init=/bench/init bench=/bench/load.sh"
dd if=/dev/urandom of=$data bs=1M count=64 2>/dev/null
sync
cat $data /dev/nvme2n1 >/dev/null
mkdir -p /mnt/bench
mount -o ro /dev/nvme2n1 /mnt/bench
mount --bind /dev /mnt/bench/dev
mount --bind /hv /mnt/bench/hv
mount -t proc proc /mnt/bench/proc

firecracker() { # ENGINE OPTIONS...
    engine=$1
    shift
    cat >/tmp/firecracker.json <<JSON
{ "boot-source": { "kernel_image_path": "$kernel", "boot_args": "$words" },
  "drives": [
    { "drive_id": "root", "path_on_host": "/dev/nvme2n1", "is_root_device": false, "is_read_only": true },
    { "drive_id": "data", "path_on_host": "$data", "is_root_device": false, "is_read_only": false,
      "cache_type": "Writeback", "io_engine": "$engine" } ],
  "machine-config": { "vcpu_count": 1, "mem_size_mib": 256 } }
JSON
    $limit firecracker "$@" --no-api --config-file /tmp/firecracker.json 2>&1 </dev/null
}

# Of the emulated host's own time: a guest that does not end is a failure, not a wait.
limit="timeout -k 1 8"

for monitor in "$@"; do
    echo "monitor $monitor"
    case $monitor in
        hv-*)
            $limit hv vm --transport "${monitor#hv-}" --kernel "$kernel" --memory 256M --disk /dev/nvme2n1,ro --disk $data /hv/images/demo.erofs -- sh -c '
                mount -t ext4 -o ro /dev/vdb /mnt && for dir in dev proc sys; do mount --bind /$dir /mnt/$dir; done
                mount -t tmpfs tmp /mnt/tmp && chroot /mnt /bench/load.sh' 2>&1 </dev/null
            ;;
        firecracker-sync) firecracker Sync ;;
        firecracker-async) firecracker Async ;;
        firecracker-pci) firecracker Sync --enable-pci ;;
        qemu-microvm)
            $limit chroot /mnt/bench qemu-system-x86_64 -M microvm,acpi=on -accel kvm -cpu host -m 256 -smp 1 \
                -nodefaults -no-user-config -display none -no-reboot -serial stdio \
                -kernel "$kernel" -append "$words" \
                -drive if=none,id=root,file=/dev/nvme2n1,format=raw,readonly=on \
                -device virtio-blk-device,drive=root \
                -object iothread,id=io \
                -drive if=none,id=data,file=$data,format=raw,cache=writeback,aio=io_uring,discard=unmap \
                -device virtio-blk-device,drive=data,iothread=io 2>&1 </dev/null
            ;;
    esac
done
