# What the boots of the virtual machine share; sourced by first, second and third, which deploy/vm runs as root in the guest.
#
# Each case is one line `@@ SUITE NAME passed|failed SECONDS TEXT`, its output comes before it, after `== SUITE NAME`. The last line of
# a boot is `@@ next` (all was done, the guest reboots) or `@@ cut` (the host is to pull the plug now).
# shellcheck shell=bash
set -u -o pipefail
export LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
payload=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Stays from boot to boot.
work=/root/vm
docker=/var/lib/berth/deploy/docker
# The users of the three berths that go through reboot and power cut.
users=(demo ann ben)
mkdir -p $work
# Where the tests of the workspace were built, they have the path of their own programs compiled in.
read -r built <"$payload/places"
mkdir -p "${built%/*}"
ln -sfn "$payload/programs" "$built"

# as USER COMMAND…: as a host user, with his Docker socket and nothing else of root's.
as() {
    local user=$1
    shift
    setpriv --reuid "$user" --regid "$user" --init-groups env -i HOME="/home/$user" USER="$user" PATH="$PATH" \
        DOCKER_HOST="unix:///run/berth/users/$(id -u "$user")/docker.sock" "$@"
}
# One word of what the node says of a user's berth: `of demo pid`.
of() { curl -sf --unix-socket /run/berth/node.sock "http://berth/v1/berths/$1" | sed -n "s/.*\"$2\": *\"\{0,1\}\([^\",}]*\).*/\1/p"; }
# The control group of a berth's payload.
group_of() { echo "/sys/fs/cgroup/berth.slice/berth-$(of "$1" id).scope/payload"; }

broken=0
# wanted NAME: it was asked for, or nothing in particular was.
wanted() {
    [ -s "$payload/only" ] || return 0
    local word
    while read -r word; do
        case $1 in *"$word"*) return 0 ;; esac
    done <"$payload/only"
    return 1
}
# must NAME FUNCTION…: a case that later ones stand on.
must() { run_case guest "$@"; }
# try NAME FUNCTION…: a case that was asked for.
try() { if wanted "$1"; then run_case guest "$@"; fi; }
# run_case SUITE NAME FUNCTION…: the function's status is the outcome, the last line of its stderr the reason.
run_case() {
    local suite=$1 name=$2 started=$SECONDS
    shift 2
    echo "== $suite $name"
    # Not in a condition: there `set -e` would not hold inside the function.
    (set -e; "$@") 2>$work/stderr
    if [ $? -eq 0 ]; then
        tail -n 60 $work/stderr
        echo "@@ $suite $name passed $((SECONDS - started))"
    else
        tail -n 150 $work/stderr
        echo "@@ $suite $name failed $((SECONDS - started)) $(grep -v '^ *$' $work/stderr | tail -n1)"
        broken=1
        return 1
    fi
}
fail() { echo "$*" >&2; exit 1; }
# within SECONDS TEST…: waits for a level. Three times as long, for the machine may have to stand back behind its host.
within() {
    local deadline=$((SECONDS + $1 * 3))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.2
    done
}
# The second disk, with project quota, and swap: what tests need, not the installation.
add_disks() {
    mkdir -p /data
    mount -o prjquota LABEL=berth-data /data
    swapon LABEL=berth-swap
}

answers() { as "$1" $docker version; }
# After a boot: the three berths run again by themselves, each with its ids, its files and the container that is to run always.
berths_are_back() {
    local user
    for user in "${users[@]}"; do
        within 180 answers "$user" || fail "the berth of $user is not back: $(berth show "$user")"
        echo "$user answers $(cut -d. -f1 /proc/uptime) s after the start of the kernel"
        [ "$(of "$user" id_base)" = "$(cat $work/"$user".base)" ] || fail "$user has other ids"
        [ "$(berth exec "$user" -- cat /root/file)" = "file of $user" ] || fail "a file of $user is not there"
        within 60 container_runs "$user" || fail "the container of $user does not run: $(as "$user" $docker ps -a)"
        [ "$(as "$user" $docker exec always cat /data/file)" = "volume of $user" ] || fail "the volume of $user is another"
    done
}
container_runs() { [ "$(as "$1" $docker inspect --format '{{.State.Running}}' always)" = true ]; }

# What the host's administrator would look at first.
explain() {
    berth list || true
    journalctl -q --no-pager -n 80 -u berth-node -u berth-server
    dmesg | tail -n 20
}
