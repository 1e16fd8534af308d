# Set at login, for every user that has a berth: any Docker client talks to it with no further ado.
if [ -z "${DOCKER_HOST:-}" ] && [ -z "${DOCKER_CONTEXT:-}" ] && [ -S "/run/berth/users/$(id -u)/docker.sock" ]; then
    DOCKER_HOST="unix:///run/berth/users/$(id -u)/docker.sock"
    export DOCKER_HOST
fi
