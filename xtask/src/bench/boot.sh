#!/bin/bash
# Runs in the testbed, in counting mode. Each monitor starts the same kernel with the same initrd; every line on
# standard output is one figure: monitor, kernel, what, value (separated by tabs). Argument: runs of each.
runs=$1
kvm=/sys/kernel/debug/tracing/events/kvm/kvm_exit
line='quiet panic=-1 reboot=k 8250.nr_uarts=1 tsc=reliable no_timer_check random.trust_cpu=on cryptomgr.notests'
initrd=/hv/bin/bench-initrd

say() { printf '%s\t%s\t%s\t%s\n' "$@"; }

# Words of the command that starts kernel $2 with monitor $1; in the array `command`.
words() {
    case $1 in
    hv) command=(boot "$2" $initrd) ;;
    firecracker)
        printf '{"boot-source":{"kernel_image_path":"%s","initrd_path":"%s","boot_args":"console=ttyS0 %s"},
            "drives":[],"machine-config":{"vcpu_count":1,"mem_size_mib":256}}' "$2" $initrd "$line" > /tmp/fc.json
        command=(firecracker --no-api --config-file /tmp/fc.json) ;;
    cloud-hypervisor)
        command=(cloud-hypervisor --kernel "$2" --initramfs $initrd --cpus boot=1 --memory size=256M
            --serial tty --console off --cmdline "console=ttyS0 $line") ;;
    floor) command=(true) ;;
    esac
}

once() {
    local begin end
    begin=$(date +%s%N)
    timeout 60 "${command[@]}" < /dev/null > /tmp/out 2>&1 || echo "bench: ${command[0]} failed" >&2
    end=$(date +%s%N)
    [ "${command[0]}" = true ] || grep -q ready /tmp/out ||
        { echo "bench: ${command[0]} did not reach its init:" >&2; tail -n 5 /tmp/out >&2; }
    elapsed=$(((end - begin) / 1000))
}

# The stock kernel is unpacked once, by hv; its cache is the only file of that name.
timeout 100 hv vm --kernel "$HV_TEST_DEBIAN_KERNEL" --rootfs /hv/images/demo.erofs -- true ||
    echo "bench: hv vm with Debian's kernel failed" >&2
debian=$(find /var/cache/hv/unpacked /root/.cache/hv/unpacked -type f -size +16M 2> /dev/null | head -n 1)
monitors=(floor hv)
for peer in firecracker cloud-hypervisor; do
    command -v $peer > /dev/null && monitors+=($peer)
done
for kernel in tuned debian; do
    path=$HV_TEST_KERNEL
    [ $kernel = tuned ] || path=$debian
    for ((run = 0; run <= runs; run++)); do
        for monitor in "${monitors[@]}"; do
            words "$monitor" "$path"
            once
            # The first run of each warms the caches.
            [ $run = 0 ] || say "$monitor" $kernel us $elapsed
        done
    done
    for monitor in "${monitors[@]:1}"; do
        words "$monitor" "$path"
        echo 'hist:keys=exit_reason' > $kvm/trigger
        once
        sed -n 's/^{ exit_reason: *\([0-9]*\) *} hitcount: *\([0-9]*\).*/\1 \2/p' $kvm/hist |
            while read -r reason count; do say "$monitor" $kernel "exit $reason" "$count"; done
        echo '!hist:keys=exit_reason' > $kvm/trigger
    done
done
