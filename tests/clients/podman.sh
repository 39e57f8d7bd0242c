#!/bin/sh
# podman, and so conmon, with hv as its runtime.
set -u
. /hv/clients/lib.sh

image /tmp/image
tar -C /tmp/image -c . | podman import --change 'ENV from=image' - box > /dev/null 2>&1
hv() {
    podman --runtime /usr/bin/hv-oci --cgroup-manager cgroupfs "$@"
}
# timeout(1) takes programs.
cat > /usr/bin/hv-podman << 'END'
#!/bin/sh
exec podman --runtime /usr/bin/hv-oci --cgroup-manager cgroupfs "$@"
END
chmod +x /usr/bin/hv-podman
run='hv-podman run --rm --network none'

says 'the runtime' '/usr/bin/hv-oci' hv-podman info --format '{{.Host.OCIRuntime.Path}}'
says 'run' 'hello' $run box echo hello
ends 7 'the status of a run' '' $run box sh -c 'exit 7'
ends 127 'no such program' '*executable file*not found*' $run box nowhere
ends 126 'no program' '*ermission denied*' $run box /etc/data
says 'user, groups, directory and environment' 'uid=1000(user) gid=1000(user) groups=*2000(other)*image /tmp there' \
    $run --user user --group-add 2000 --workdir /tmp --env to=there box sh -c 'id; echo $from $PWD $to'
says 'standard input' 'typed' sh -c "echo typed | $run -i box cat"
says 'a terminal' '*91*/dev/pts/0*' sh -c ". /hv/clients/lib.sh; in_terminal $run -it box sh -c \"'stty size; tty'\""
says 'a volume' 'kept' sh -c "hv-podman volume create v > /dev/null; $run -v v:/v box sh -c 'echo kept > /v/file'
    $run -v v:/v:ro box cat /v/file"
ends 1 'a read-only volume' '*Read-only file system*' $run -v v:/v:ro box touch /v/file
ends 1 'a read-only root' '*Read-only file system*' $run --read-only box touch /file
says 'limits' '20' $run --memory 64m --pids-limit 20 --cpus 0.5 --cpu-shares 512 box sh -c "$tasks"
says 'another user namespace' '*0*100000*' $run --uidmap 0:100000:65536 --gidmap 0:100000:65536 box cat /proc/self/uid_map
says 'an init of its own' '*podman-init*' $run --init --init-path /usr/bin/tini-static box ps -o args

says 'detached' '*' hv-podman run -d --name a --network none box sh -c 'echo started; exec sleep 1000'
until_says started podman logs a
says 'logs' 'started' podman logs a
says 'exec' 'uid=0*' hv-podman exec a id
ends 3 'the status of an exec' '' hv-podman exec a sh -c 'exit 3'
ends 127 'exec of no such program' '*executable file*not found*' hv-podman exec a nowhere
says 'exec with a terminal' '*91*' sh -c ". /hv/clients/lib.sh; in_terminal hv-podman exec -it a stty size"
says 'exec as another user' 'uid=1000*' hv-podman exec --user user a id
says 'ps' '*Up*' podman ps --filter name=a --format '{{.Status}}'
says 'top' '*sleep 1000*' hv-podman top a
says 'pause' '*paused*' sh -c 'hv-podman pause a > /dev/null; podman inspect --format "{{.State.Status}}" a'
says 'unpause' '*running*' sh -c 'hv-podman unpause a > /dev/null; podman inspect --format "{{.State.Status}}" a'
says 'stats' '*a*' hv-podman stats --no-stream --format '{{.Name}} {{.MemUsage}} {{.PIDs}}' a
says 'update' '*33554432' sh -c ". /hv/clients/lib.sh; hv-podman update --memory 32m a; hv-podman exec a sh -c \"\$memory\""
says 'kill' '137' sh -c 'hv-podman kill a > /dev/null; hv-podman wait a'
says 'start again' '*' hv-podman start a
says 'stop' '*Exited*' sh -c 'hv-podman stop -t 1 a > /dev/null; podman ps -a --filter name=a --format "{{.Status}}"'
says 'rm' '*' hv-podman rm -f a

says 'a port' 'not a program' sh -c '. /hv/clients/lib.sh
    hv-podman run -d --name web -p 8080:80 box httpd -f -p 80 -h /etc > /dev/null
    until_says "not a program" busybox wget -q -O - http://127.0.0.1:8080/data
    busybox wget -q -O - http://127.0.0.1:8080/data'
says 'namespaces joined by path' '*httpd*127.0.0.1*' hv-podman run --rm --network container:web --pid container:web \
    --ipc container:web box sh -c 'ps -o args; wget -q -O - http://127.0.0.1/data && echo 127.0.0.1'
says 'rm of what runs' 'web' hv-podman rm -f -t 0 web
says 'nothing is left' '' hv-oci list --quiet
verdict
