#!/bin/sh
# In the guest: finds the disk of 64 MiB, and loads it with fio. One line a job: `load JOB OPERATIONS-A-SECOND`.
for size in /sys/block/vd*/size; do
    if [ "$(cat "$size")" = 131072 ]; then
        disk=${size#/sys/block/}
        disk=/dev/${disk%/size}
    fi
done
# fio takes the size of a cache line from here, and dies of what some monitors have the processor say.
mount -t tmpfs none /sys/devices/system/cpu/cpu0/cache 2>/dev/null
cat >/tmp/jobs <<JOBS
[global]
filename=$disk
direct=1
thread=1
randrepeat=1
norandommap=1
gtod_reduce=1
size=64m
[warm-up]
rw=read
bs=128k
ioengine=psync
[read-4k-1]
stonewall
rw=randread
bs=4k
ioengine=psync
number_ios=4000
[write-4k-1]
stonewall
rw=randwrite
bs=4k
ioengine=psync
number_ios=4000
[read-4k-32]
stonewall
rw=randread
bs=4k
ioengine=libaio
iodepth=32
number_ios=6400
[write-4k-32]
stonewall
rw=randwrite
bs=4k
ioengine=libaio
iodepth=32
number_ios=6400
[read-128k]
stonewall
rw=read
bs=128k
ioengine=libaio
iodepth=8
number_ios=400
[write-128k]
stonewall
rw=write
bs=128k
ioengine=libaio
iodepth=8
number_ios=400
JOBS
fio --output-format=terse --terse-version=3 /tmp/jobs >/tmp/result 2>/tmp/errors || cat /tmp/errors
awk -F';' '$1 == 3 { print "load", $3, $8 + $49 }' /tmp/result
