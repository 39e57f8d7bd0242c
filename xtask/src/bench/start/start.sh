#!/bin/bash
# Runs in the testbed, in counting mode. hv and its peers start /bin/true from the same root directory and the same
# config.json; every line on standard output is one figure: runtime, what, unit, value (separated by tabs).
# Arguments: runs of each; containers that are started at once.
runs=$1
at_once=$2
idle=10
image=/hv/images/demo
mkdir -p /tmp/bundle
cd /tmp/bundle || exit 1

say() { printf '%s\t%s\t%s\t%s\n' "$@"; }

# The bundle that runc itself would make, with another program.
bundle() {
    rm -f config.json
    runc spec
    sed -i -e 's/"terminal": true/"terminal": false/' -e "s|\"rootfs\"|\"$image\"|" -e "s/^\t\t\t\"sh\"$/\t\t\t$1/" config.json
}

runtimes=(hv)
for peer in crun runc youki; do
    command -v $peer > /dev/null && runtimes+=($peer)
done

# Words before the verb of runtime $1; in the array `runtime`.
runtime() {
    runtime=("$1")
    [ "$1" != hv ] || runtime=(hv oci)
}

# Microseconds that "$@" takes, in `elapsed`.
once() {
    local begin end failed=0
    # The shell's own clock, in microseconds: nothing is executed but what is measured.
    begin=${EPOCHREALTIME/[.,]/}
    "$@" < /dev/null > /tmp/out 2>&1 || failed=1
    end=${EPOCHREALTIME/[.,]/}
    elapsed=$((end - begin))
    [ $failed = 0 ] || { echo "bench: $* failed:" >&2; tail -n 5 /tmp/out >&2; }
}

whole() {
    local run name
    for ((run = 0; run <= runs; run++)); do
        for name in floor "hv ctr DIR" "hv ctr EROFS" "${runtimes[@]}"; do
            case $name in
            floor) once /bin/true ;;
            "hv ctr DIR") once hv ctr $image -- true ;;
            "hv ctr EROFS") once hv ctr $image.erofs -- true ;;
            *) runtime "$name" && once "${runtime[@]}" run "run$run" ;;
            esac
            # The first run of each warms the caches.
            [ $run = 0 ] || say "$name" run us $elapsed
        done
    done
}

gone() {
    while [ -d "/proc/$(cat pid)" ]; do sleep 0.01; done
}

steps() {
    local run name
    for ((run = 0; run <= runs; run++)); do
        for name in "${runtimes[@]}"; do
            runtime "$name"
            once "${runtime[@]}" create --pid-file pid "step$run"
            [ $run = 0 ] || say "$name" create us $elapsed
            once "${runtime[@]}" start "step$run"
            [ $run = 0 ] || say "$name" start us $elapsed
            gone
            once "${runtime[@]}" delete "step$run"
            [ $run = 0 ] || say "$name" delete us $elapsed
        done
    done
}

# $1 starts of "${command[@]}" at once; `number` in it becomes 1, 2, ...
swarm() {
    local one
    for ((one = 1; one <= $1; one++)); do
        "${command[@]/number/$one}" < /dev/null > /dev/null 2>> /tmp/errors &
    done
}

makespan() {
    local name begin end
    for name in "hv ctr DIR" "${runtimes[@]}"; do
        runtime "$name"
        command=("${runtime[@]}" run all-number)
        [ "$name" != "hv ctr DIR" ] || command=(hv ctr $image -- true)
        : > /tmp/errors
        begin=${EPOCHREALTIME/[.,]/}
        swarm "$at_once"
        wait
        end=${EPOCHREALTIME/[.,]/}
        [ ! -s /tmp/errors ] || { echo "bench: $name, $at_once at once:" >&2; sort /tmp/errors | uniq -c | head -n 5 >&2; }
        say "$name" at-once us $((end - begin))
    done
}

processes() { ps -e -o pid= -o comm= | awk '$2 != "ps" && $2 != "awk" { print $1 }' | sort; }

# What the processes that a container brings with it take, the idle program itself and its share of hv's file included.
memory() {
    local name before pid sum tries
    for name in "hv ctr DIR" "${runtimes[@]}"; do
        runtime "$name"
        command=("${runtime[@]}" run idle-number)
        [ "$name" != "hv ctr DIR" ] || command=(hv ctr $image -- sleep 1000)
        before=$(processes)
        swarm $idle
        tries=0
        while [ "$(pgrep -xc sleep)" -lt $idle ] && [ $tries -lt 300 ]; do
            # Not by sleep, which is what is counted.
            timeout 0.1 tail -f /dev/null
            tries=$((tries + 1))
        done
        sum=0
        for pid in $(comm -13 <(echo "$before") <(processes)); do
            pss=$(awk '/^Pss:/ { print $2 }' "/proc/$pid/smaps_rollup" 2> /dev/null)
            sum=$((sum + ${pss:-0}))
        done
        say "$name" idle KiB $((sum / idle))
        # The workload's end is the end of all.
        pkill -KILL -x sleep
        wait
    done
}

bundle '"true"'
whole
steps
makespan
bundle '"sleep", "1000"'
memory
