# Read at login by sh, dash and bash (/etc/profile), and by zsh where the administrator says so. Docker clients of a user who
# has a berth and chose no other Docker himself talk to it with no further ado. Asks no name service: the uid is enough.
# Whoever has none asks for one at an interactive login: the rules of the host may give it (berth rule). That takes three seconds
# at most, says nothing, and leaves scripts, scp and sftp alone.
if [ -z "${DOCKER_HOST:-}" ] && [ -z "${DOCKER_CONTEXT:-}" ] && [ -d /run/berth/users ]; then
    # bash and zsh know it; what an environment made up names no socket that is the caller's.
    berth_socket=/run/berth/users/${UID:-$(id -u)}/docker.sock
    if ! [ -S "$berth_socket" ]; then
        case $- in
            *i*) berth claim --quiet --wait 3 </dev/null >/dev/null 2>&1 || : ;;
        esac
    fi
    if [ -S "$berth_socket" ] && [ -O "$berth_socket" ]; then
        # A context that he made the current one would be overruled by DOCKER_HOST.
        berth_context=
        berth_config=${DOCKER_CONFIG:-${HOME:-}/.docker}/config.json
        if [ -f "$berth_config" ] && [ -r "$berth_config" ]; then
            while IFS= read -r berth_line || [ -n "$berth_line" ]; do
                case $berth_line in
                    *'"currentContext"'*)
                        berth_line=${berth_line#*'"currentContext"'}
                        berth_line=${berth_line#*'"'}
                        berth_context=${berth_line%%'"'*}
                        ;;
                esac
            done <"$berth_config"
        fi
        case $berth_context in
            '' | default)
                DOCKER_HOST=unix://$berth_socket
                export DOCKER_HOST
                ;;
        esac
    fi
    unset berth_socket berth_context berth_config berth_line
fi
