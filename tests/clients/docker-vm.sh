#!/bin/sh
# docker with hv-oci-vm as its runtime: each container is a microVM. In the testbed alone.
set -u
. /hv/clients/lib.sh
image /tmp/image
hv kernel add /hv/kernel --name here > /dev/null
mkdir -p /etc/docker
cat > /etc/docker/daemon.json << 'END'
{"runtimes": {"hv-vm": {"path": "/usr/bin/hv-oci-vm"}}, "default-runtime": "hv-vm",
 "data-root": "/var/lib/containers/docker", "exec-opts": ["native.cgroupdriver=cgroupfs"]}
END
dockerd > /tmp/dockerd.log 2>&1 &
daemon=$!
until_says '*Server Version*' docker info || cat /tmp/dockerd.log
tar -C /tmp/image -c . | docker import - box > /dev/null
says 'run' 'hello' docker run --rm --network none box echo hello
says 'detached, with a port' '*' docker run -d --name web -p 8080:80 box httpd -f -p 80 -h /etc
says 'the port' 'not a program' sh -c '. /hv/clients/lib.sh
    until_says "not a program" busybox wget -q -O - http://127.0.0.1:8080/data
    busybox wget -q -O - http://127.0.0.1:8080/data'
ends 3 'exec' 'uid=0*' docker exec web sh -c 'id; exit 3'
says 'stop' 'web' docker stop -t 2 web
says 'rm' 'web' docker rm web
kill "$daemon"
wait "$daemon"
verdict
