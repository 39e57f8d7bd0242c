# What the client scripts share. Sourced inside the system that enter.sh makes.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
failures=0
script=$(basename "$0" .sh)

# says NAME WANTED COMMAND...: COMMAND prints WANTED (a shell pattern, of both streams) and ends with status 0.
says() {
    ends 0 "$@"
}

# ends STATUS NAME WANTED COMMAND...: the same with another status.
ends() {
    wanted_status=$1 name=$2 wanted=$3
    shift 3
    status=0
    output=$(timeout 60 "$@" 2>&1 < /dev/null) || status=$?
    # shellcheck disable=SC2254
    case $output in
        $wanted) [ "$status" -eq "$wanted_status" ] && echo "ok $script: $name" && return ;;
    esac
    failures=$((failures + 1))
    echo "FAILED $script: $name: status $status, wanted $wanted_status; wanted: $wanted"
    echo "$output" | sed 's/^/    /'
}

# until_says WANTED COMMAND...: again and again, for half a minute, until COMMAND prints WANTED (a pattern).
until_says() {
    wanted=$1
    shift
    tries=0
    while [ "$tries" -lt 300 ]; do
        # shellcheck disable=SC2254
        case $("$@" 2>&1) in $wanted) return 0 ;; esac
        tries=$((tries + 1))
        sleep 0.1
    done
    return 1
}

# image DIR: a root directory with busybox and its programs.
image() {
    mkdir -p "$1/bin" "$1/etc" "$1/tmp" "$1/proc" "$1/dev" "$1/sys" "$1/root"
    cp /bin/busybox "$1/bin/busybox"
    for name in sh true false echo sleep cat ls id hostname wget nc httpd stty ps env touch kill tty date head mount; do
        ln -sf busybox "$1/bin/$name"
    done
    echo 'root:x:0:0:root:/root:/bin/sh
user:x:1000:1000::/tmp:/bin/sh' > "$1/etc/passwd"
    echo 'root:x:0:
user:x:1000:
other:x:2000:user' > "$1/etc/group"
    echo 'not a program' > "$1/etc/data"
}

# Inside: prints the limit on tasks, wherever this host has it.
tasks='cat /sys/fs/cgroup/pids.max 2> /dev/null || cat /sys/fs/cgroup/pids/pids.max'
# Inside: prints the limit on memory.
memory='cat /sys/fs/cgroup/memory.max 2> /dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes'
# Inside: prints the terminal's size as soon as the client has set it, which it may do after the start.
size='until stty size | grep 91; do sleep 0.1; done'

# in_terminal COMMAND...: its standard streams are a terminal of 91 columns.
in_terminal() {
    script --quiet --return --command "stty cols 91 rows 31; $*" /dev/null | tr -d '\r'
}

# The script's status: whether all held.
verdict() {
    echo "$script: $failures failed"
    [ "$failures" -eq 0 ]
}
