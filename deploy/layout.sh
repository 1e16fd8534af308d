# Where an installation of Berth lies on a host, and the few steps that deploy/up and deploy/down share. Sourced by both,
# so that what one makes the other finds. Needs bash and root.
# shellcheck shell=bash disable=SC2034

lib_dir=/usr/local/lib/berth
bin_dir=/usr/local/bin
share_dir=/usr/local/share/berth
unit_dir=/usr/local/lib/systemd/system
run_dir=/run/berth
state_dir=/var/lib/berth
log_dir=/var/log/berth
config_dir=/etc/berth
api_socket=$run_dir/api.sock
node_socket=$run_dir/node.sock

# Accounts that deploy/up made, one name a line, written before the account: an account that was there before is never removed.
made_accounts=$state_dir/deploy/accounts
lock_file=/run/lock/berth-deploy.lock

# Only with deploy/up --pam-env; pam-auth-update(8) puts it into every kind of session and takes it out.
pam_config=/usr/share/pam-configs/berth

# Single files outside the directories that are Berth's own.
stray_files=(
    "$bin_dir/berth"
    "$unit_dir/berth-node.service"
    "$unit_dir/berth-server.service"
    /usr/local/lib/sysusers.d/berth.conf
    /usr/local/lib/modules-load.d/berth.conf
    /etc/profile.d/berth.sh
    /etc/fish/conf.d/berth.fish
    "$pam_config"
    /etc/pam.d/berth
)
# Directories of others that may have to be made for them; removed only when empty and made by us.
made_dirs=$state_dir/deploy/directories

under_systemd() { [ -d /run/systemd/system ]; }

need_root() {
    [ "$(id -u)" -eq 0 ] || die 1 "must run as root: sudo deploy/$program"
}

# One deploy/up or deploy/down at a time; the daemons do not inherit the lock.
take_lock() {
    mkdir -p "${lock_file%/*}"
    exec 9>"$lock_file"
    flock -w 5 9 || die 1 "another deploy/up or deploy/down is running (it holds $lock_file)"
}

say() { printf '%s\n' "berth: $*" >&2; }
die() {
    local status=$1
    shift
    say "$*"
    exit "$status"
}

# Start time of a process in clock ticks (proc(5), field 22); with the pid it names one process for good. Nothing for one
# that is dead and only not yet reaped.
start_time() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 !~ /[ZX]/ { print $20 }'; }

# Pid of a daemon that deploy/up started, when it still runs; a stale pid file names nobody.
daemon_pid() {
    local pid started
    read -r pid started 2>/dev/null <"$run_dir/$1.pid" || return 1
    [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ] && echo "$pid"
}

# Ends one daemon by pid; shims and berths are no children of it to wait for.
stop_daemon() {
    local name=$1 pid waited=0
    if under_systemd; then
        systemctl stop "berth-$name.service" 2>/dev/null || true
        return
    fi
    if pid=$(daemon_pid "$name"); then
        kill -TERM "$pid" 2>/dev/null || true
        while daemon_pid "$name" >/dev/null; do
            if [ $waited -eq 300 ]; then
                say "berth-$name ($pid) did not stop within 30 s and is killed"
                kill -KILL "$pid" 2>/dev/null || true
            fi
            [ $waited -lt 350 ] || die 1 "berth-$name ($pid) cannot be ended; see $log_dir/$name.log"
            sleep 0.1
            waited=$((waited + 1))
        done
    fi
    rm -f "$run_dir/$name.pid"
}
