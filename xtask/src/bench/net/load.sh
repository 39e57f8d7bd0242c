#!/bin/sh
# In the guest: streams and single exchanges with the iperf3 of the host. One line a job: `load JOB MEGABYTES-A-SECOND`.
ip addr add 192.0.2.2/24 dev eth0
ip link set eth0 up
job() { # NAME OPTIONS...
    name=$1
    shift
    iperf3 -c 192.0.2.1 -f M "$@" >/tmp/result 2>&1 || cat /tmp/result
    awk -v name="$name" '/receiver/ { for (i = 1; i < NF; i++) if ($(i + 1) == "MBytes/sec") print "load", name, $i }' /tmp/result
}
job warm-up -n 4M
job send -n 32M
job receive -n 32M -R
job send-1k -n 2M -l 1K -N
job receive-1k -n 2M -l 1K -N -R
