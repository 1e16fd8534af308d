#!/bin/sh
# The entry point of an image in the manner of docker:dind: certificates of its own, the cgroup v2 root emptied for nesting, mounts shared,
# then a dockerd that starts its containerd itself, under a reaper, on its socket and by TLS on port 2376.
set -eu
certs=${DOCKER_TLS_CERTDIR:-}
if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
    set -- dockerd --host=unix:///var/run/docker.sock "$@"
    if [ -n "$certs" ]; then
        mkdir -p "$certs/ca" "$certs/server" "$certs/client"
        cd "$certs"
        key() { [ -s "$1" ] || openssl genrsa -out "$1" 2048 2>/dev/null; }
        key ca/key.pem && key server/key.pem && key client/key.pem
        openssl req -new -key ca/key.pem -out ca/cert.pem -subj '/CN=docker:dind CA' -x509 -days 800
        names="DNS:localhost,DNS:docker,DNS:$(hostname),IP:127.0.0.1"
        for address in $(hostname -I); do names="$names,IP:$address"; done
        for side in server client; do
            openssl req -new -key $side/key.pem -out $side/csr.pem -subj "/CN=docker:dind $side"
            { [ $side = server ] && echo "subjectAltName=$names"; echo "extendedKeyUsage=${side}Auth"; } >$side/ext
            openssl x509 -req -in $side/csr.pem -CA ca/cert.pem -CAkey ca/key.pem -CAcreateserial -out $side/cert.pem -days 800 \
                -extfile $side/ext 2>/dev/null
            cp ca/cert.pem $side/ca.pem
        done
        cd /
        set -- "$@" --host=tcp://0.0.0.0:2376 --tlsverify --tlscacert="$certs/server/ca.pem" --tlscert="$certs/server/cert.pem" \
            --tlskey="$certs/server/key.pem"
    else
        set -- "$@" --host=tcp://0.0.0.0:2375
    fi
fi
if [ "$1" = dockerd ]; then
    find /run /var/run -iname 'docker*.pid' -delete || :
    iptables -nL >/dev/null || modprobe ip_tables || :
    export container=docker
    if [ -d /sys/kernel/security ] && ! mountpoint -q /sys/kernel/security; then
        mount -t securityfs none /sys/kernel/security || echo 'no securityfs: AppArmor is not seen' >&2
    fi
    mountpoint -q /tmp || mount -t tmpfs none /tmp
    if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
        mkdir -p /sys/fs/cgroup/init
        xargs -rn1 </sys/fs/cgroup/cgroup.procs >/sys/fs/cgroup/init/cgroup.procs || :
        sed -e 's/ / +/g' -e 's/^/+/' </sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
    fi
    mount --make-rshared /
    reaper=$(command -v docker-init || echo /usr/libexec/docker/docker-init)
    set -- "$reaper" -- "$@"
fi
exec "$@"
