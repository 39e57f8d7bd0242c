#!/bin/sh
# podman with hv-oci-vm as its runtime: each container is a microVM. In the testbed alone.
set -u
. /hv/clients/lib.sh

image /tmp/image
tar -C /tmp/image -c . | podman import --change 'ENV from=image' - box > /dev/null 2>&1
says 'a kernel' '*' hv kernel add /hv/kernel --name here
cat > /usr/bin/hv-podman << 'END'
#!/bin/sh
exec podman --runtime /usr/bin/hv-oci-vm --cgroup-manager cgroupfs "$@"
END
chmod +x /usr/bin/hv-podman
run='hv-podman run --rm --network none'

says 'run' 'hello' $run box echo hello
ends 7 'status, user, environment and files of podman' '*uid=1000(user)*image there*name-of-it*' $run --user user --env to=there \
    --hostname name-of-it box sh -c 'id; echo $from $to; cat /etc/hostname; exit 7'
ends 126 'a volume is refused by name' '*mounts (/v)*' $run -v /tmp/image:/v box true
says 'detached, with a port' '*' hv-podman run -d --name web -p 8080:80 box httpd -f -p 80 -h /etc
says 'the port' 'not a program' sh -c '. /hv/clients/lib.sh
    until_says "not a program" busybox wget -q -O - http://127.0.0.1:8080/data
    busybox wget -q -O - http://127.0.0.1:8080/data'
says 'exec' 'uid=0*' hv-podman exec web id
ends 3 'the status of an exec' '' hv-podman exec web sh -c 'exit 3'
says 'exec with a terminal' '*91*' sh -c ". /hv/clients/lib.sh; in_terminal hv-podman exec -it web sh -c \"'\$size'\""
says 'pause' '*paused*' sh -c 'hv-podman pause web > /dev/null; podman inspect --format "{{.State.Status}}" web'
says 'unpause' '*running*' sh -c 'hv-podman unpause web > /dev/null; podman inspect --format "{{.State.Status}}" web'
says 'stop' '*Exited*' sh -c 'hv-podman stop -t 2 web > /dev/null; podman ps -a --filter name=web --format "{{.Status}}"'
says 'rm' 'web' hv-podman rm -f web
says 'nothing is left' '' hv-oci list --quiet
verdict
