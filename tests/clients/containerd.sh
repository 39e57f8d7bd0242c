#!/bin/sh
# containerd's ctr, and so its runc shim (io.containerd.runc.v2), with hv as its runtime.
set -u
. /hv/clients/lib.sh

image /tmp/image
tar -C /tmp/image -c . | podman import - box > /dev/null 2>&1
podman save --format oci-archive -o /tmp/box.tar box > /dev/null 2>&1
mkdir -p /tmp/containerd
cat > /tmp/containerd.toml << 'END'
version = 2
root = "/var/lib/containers/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
END
containerd --config /tmp/containerd.toml > /tmp/containerd.log 2>&1 &
daemon=$!
until_says '*Version*' ctr version || cat /tmp/containerd.log
says 'import' '*' ctr images import /tmp/box.tar
image=$(ctr images list -q)
cat > /usr/bin/hv-ctr-run << 'END'
#!/bin/sh
exec ctr run --runc-binary /usr/bin/hv-oci "$@"
END
chmod +x /usr/bin/hv-ctr-run

says 'run' 'hello' hv-ctr-run --rm "$image" a echo hello
ends 7 'the status of a run' '' hv-ctr-run --rm "$image" a sh -c 'exit 7'
ends 1 'no such program' '*executable file*not found*' hv-ctr-run --rm "$image" a nowhere
says 'a terminal' '*31 91*' sh -c ". /hv/clients/lib.sh; in_terminal hv-ctr-run --rm -t $image t sh -c \"'\$size'\""
says 'a mount and a limit' '*not a program*' hv-ctr-run --rm --memory-limit 67108864 \
    --mount type=bind,src=/tmp/image/etc,dst=/mnt,options=rbind:ro "$image" m cat /mnt/data
says 'detached' '' hv-ctr-run -d "$image" b sleep 1000
says 'list' '*b*RUNNING*' ctr tasks list
says 'exec' 'uid=0*' ctr tasks exec --exec-id one b id
ends 3 'the status of an exec' '' ctr tasks exec --exec-id two b sh -c 'exit 3'
says 'ps' '*PID*' ctr tasks ps b
says 'pause' '*PAUSED*' sh -c 'ctr tasks pause b; ctr tasks list'
says 'resume' '*RUNNING*' sh -c 'ctr tasks resume b; ctr tasks list'
says 'metrics' '*memory*' ctr tasks metrics b
says 'kill' '*STOPPED*' sh -c '. /hv/clients/lib.sh; ctr tasks kill --signal KILL b; until_says "*STOPPED*" ctr tasks list
    ctr tasks list'
says 'delete' '*137*' ctr tasks delete b
says 'nothing is left' '' find /run/containerd/runc -mindepth 2
kill "$daemon"
verdict
