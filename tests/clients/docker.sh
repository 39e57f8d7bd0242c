#!/bin/sh
# docker's daemon with hv as its runtime.
set -u
. /hv/clients/lib.sh

image /tmp/image
mkdir -p /etc/docker
cat > /etc/docker/daemon.json << 'END'
{"runtimes": {"hv": {"path": "/usr/bin/hv-oci"}}, "default-runtime": "hv",
 "data-root": "/var/lib/containers/docker", "exec-opts": ["native.cgroupdriver=cgroupfs"]}
END
dockerd > /tmp/dockerd.log 2>&1 &
daemon=$!
until_says '*Server Version*' docker info || cat /tmp/dockerd.log
tar -C /tmp/image -c . | docker import - box > /dev/null

says 'the runtime' 'hv' docker info --format '{{.DefaultRuntime}}'
says 'run' 'hello' docker run --rm box echo hello
ends 7 'the status of a run' '' docker run --rm box sh -c 'exit 7'
ends 127 'no such program' '*executable file*not found*' docker run --rm box nowhere
ends 126 'no program' '*permission denied*' docker run --rm box /etc/data
says 'user and directory' '*uid=1000*/tmp' docker run --rm --user user --workdir /tmp box sh -c 'id; pwd'
says 'a terminal' '*91*' sh -c '. /hv/clients/lib.sh; in_terminal docker run --rm -it box sh -c "\"$size\""'
says 'volumes' 'kept' sh -c 'docker run --rm -v vol:/v box sh -c "echo kept > /v/file"; docker run --rm -v vol:/v:ro box cat /v/file'
says 'limits' '20*100' docker run --rm --memory 64m --pids-limit 20 --cpus 0.5 --ulimit nofile=100 box \
    sh -c "$tasks; ulimit -n"
says 'detached, with a port' '*' docker run -d --name web -p 8080:80 box httpd -f -p 80 -h /etc
says 'the port' 'not a program' sh -c '. /hv/clients/lib.sh
    until_says "not a program" busybox wget -q -O - http://127.0.0.1:8080/data
    busybox wget -q -O - http://127.0.0.1:8080/data'
says 'exec' 'uid=0*' docker exec web id
ends 3 'the status of an exec' '' docker exec web sh -c 'exit 3'
says 'exec with a terminal' '*91*' sh -c '. /hv/clients/lib.sh; in_terminal docker exec -it web sh -c "\"$size\""'
says 'top' '*httpd*' docker top web
says 'pause' '*paused*' sh -c 'docker pause web > /dev/null; docker inspect --format "{{.State.Status}}" web'
says 'unpause' '*running*' sh -c 'docker unpause web > /dev/null; docker inspect --format "{{.State.Status}}" web'
says 'stats' 'web*iB / *iB' docker stats --no-stream --format '{{.Name}} {{.MemUsage}}' web
says 'update' '33554432' sh -c 'docker update --memory 32m --memory-swap 32m web > /dev/null
    docker inspect --format "{{.HostConfig.Memory}}" web'
says 'stop' '*Exited*' sh -c 'docker stop -t 1 web > /dev/null; docker ps -a --filter name=web --format "{{.Status}}"'
says 'start again' 'web' docker start web
says 'logs' '*' docker logs web
says 'rm' 'web' docker rm -f web
says 'as a service that restarts' '*exit 1*' sh -c 'docker run -d --name again --restart on-failure:2 box sh -c "echo exit 1; exit 1" > /dev/null
    docker wait again > /dev/null; docker logs again; docker rm -f again > /dev/null'
kill "$daemon"
wait "$daemon"
verdict
