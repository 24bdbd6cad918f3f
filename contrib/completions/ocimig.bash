# Made by "make man" from src/ocimig/cli/verbs.py: do not edit.
_ocimig_ids() {
    local root=/run/ocimig i
    ((EUID == 0)) || root=${XDG_RUNTIME_DIR:-/run}/ocimig
    for ((i = 1; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == --root ]] || continue
        root=${COMP_WORDS[i + 1]}
        [[ $root == "=" ]] && root=${COMP_WORDS[i + 2]}
        break
    done
    (cd -- "$root" 2>/dev/null && compgen -d -- "$1")
}

_ocimig() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb="" i
    [[ $cur == "=" ]] && cur=""
    [[ $prev == "=" ]] && prev=${COMP_WORDS[COMP_CWORD - 2]}
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --root|--log|--log-format|--rootless|--cgroup-manager|--criu|--log-level) [[ ${COMP_WORDS[i + 1]} == "=" ]] && ((i++)); ((i++)) ;;
        -*) ;;
        *) verb=${COMP_WORDS[i]}; break ;;
        esac
    done
    case $verb in backup|job)
        ((i + 1 < COMP_CWORD)) && verb+=" ${COMP_WORDS[i + 1]}" ;;
    esac
    case "$verb,$prev" in
    ",--root") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    ",--log") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    ",--log-format") mapfile -t COMPREPLY < <(compgen -W "text json" -- "$cur"); return ;;
    ",--rootless") mapfile -t COMPREPLY < <(compgen -W "true false auto" -- "$cur"); return ;;
    ",--cgroup-manager") mapfile -t COMPREPLY < <(compgen -W "cgroupfs systemd disabled" -- "$cur"); return ;;
    "create,-b"|"create,--bundle") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "create,-f"|"create,--config") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "create,--console-socket") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "create,--pidfd-socket") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "create,--pid-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "create,--preserve-fds") return ;;
    "create,--net") return ;;
    "run,-b"|"run,--bundle") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "run,-f"|"run,--config") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "run,--console-socket") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "run,--pidfd-socket") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "run,--pid-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "run,--preserve-fds") return ;;
    "run,--net") return ;;
    "exec,--console-socket") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "exec,--pidfd-socket") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "exec,--cwd") return ;;
    "exec,-e"|"exec,--env") return ;;
    "exec,-u"|"exec,--user") return ;;
    "exec,-g"|"exec,--additional-gids") return ;;
    "exec,-p"|"exec,--process") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "exec,--pid-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "exec,--process-label") return ;;
    "exec,--apparmor") return ;;
    "exec,-c"|"exec,--cap") return ;;
    "exec,--preserve-fds") return ;;
    "exec,--cgroup") return ;;
    "list,-f"|"list,--format") mapfile -t COMPREPLY < <(compgen -W "table json" -- "$cur"); return ;;
    "ps,-f"|"ps,--format") mapfile -t COMPREPLY < <(compgen -W "table json" -- "$cur"); return ;;
    "spec,-b"|"spec,--bundle") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "checkpoint,--image-path") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "checkpoint,--work-path") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "checkpoint,--parent-path") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "checkpoint,--manage-cgroups-mode") mapfile -t COMPREPLY < <(compgen -W "soft full strict ignore" -- "$cur"); return ;;
    "checkpoint,--empty-ns") mapfile -t COMPREPLY < <(compgen -W "network" -- "$cur"); return ;;
    "checkpoint,--network-lock") mapfile -t COMPREPLY < <(compgen -W "iptables nftables skip" -- "$cur"); return ;;
    "checkpoint,--page-server") return ;;
    "checkpoint,--status-fd") return ;;
    "restore,-b"|"restore,--bundle") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "restore,--image-path") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "restore,--work-path") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "restore,--pid-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "restore,--console-socket") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "restore,--manage-cgroups-mode") mapfile -t COMPREPLY < <(compgen -W "soft full strict ignore" -- "$cur"); return ;;
    "restore,--empty-ns") mapfile -t COMPREPLY < <(compgen -W "network" -- "$cur"); return ;;
    "restore,--network-lock") mapfile -t COMPREPLY < <(compgen -W "iptables nftables skip" -- "$cur"); return ;;
    "restore,--lsm-profile") return ;;
    "restore,--lsm-mount-context") return ;;
    "migrate,-p"|"migrate,--port") return ;;
    "migrate,-i"|"migrate,--identity") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "migrate,--known-hosts") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "migrate,--transport") mapfile -t COMPREPLY < <(compgen -W "paramiko openssh local" -- "$cur"); return ;;
    "migrate,--remote-command") return ;;
    "migrate,--remote-root") return ;;
    "migrate,--progress") mapfile -t COMPREPLY < <(compgen -W "auto plain json none" -- "$cur"); return ;;
    "migrate,--report") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "migrate,--max-downtime") return ;;
    "migrate,--max-rounds") return ;;
    "migrate,--max-bandwidth") return ;;
    "migrate,--timeout") return ;;
    "migrate,--on-timeout") mapfile -t COMPREPLY < <(compgen -W "abort stop throttle" -- "$cur"); return ;;
    "migrate,--tracker") mapfile -t COMPREPLY < <(compgen -W "userfault softdirty content auto none" -- "$cur"); return ;;
    "migrate,--streams") return ;;
    "migrate,--compress") mapfile -t COMPREPLY < <(compgen -W "zstd none auto" -- "$cur"); return ;;
    "dirty-rate,--seconds") return ;;
    "dirty-rate,--tracker") mapfile -t COMPREPLY < <(compgen -W "userfault softdirty content auto" -- "$cur"); return ;;
    "drain,--to") return ;;
    "drain,--parallel") return ;;
    "drain,-p"|"drain,--port") return ;;
    "drain,-i"|"drain,--identity") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "drain,--known-hosts") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "drain,--transport") mapfile -t COMPREPLY < <(compgen -W "paramiko openssh local" -- "$cur"); return ;;
    "drain,--remote-command") return ;;
    "drain,--remote-root") return ;;
    "drain,--max-downtime") return ;;
    "drain,--max-rounds") return ;;
    "drain,--max-bandwidth") return ;;
    "drain,--timeout") return ;;
    "drain,--on-timeout") mapfile -t COMPREPLY < <(compgen -W "abort stop throttle" -- "$cur"); return ;;
    "drain,--tracker") mapfile -t COMPREPLY < <(compgen -W "userfault softdirty content auto none" -- "$cur"); return ;;
    "drain,--streams") return ;;
    "drain,--compress") mapfile -t COMPREPLY < <(compgen -W "zstd none auto" -- "$cur"); return ;;
    "job run,--format") mapfile -t COMPREPLY < <(compgen -W "table json" -- "$cur"); return ;;
    "job run,--jobs") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "job run,--state") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "job list,--format") mapfile -t COMPREPLY < <(compgen -W "table json" -- "$cur"); return ;;
    "job list,--jobs") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "job status,--format") mapfile -t COMPREPLY < <(compgen -W "table json" -- "$cur"); return ;;
    "job status,--jobs") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "job status,--state") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "job validate,--jobs") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "job show,--jobs") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "job install-timer,--jobs") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup init,--encryption") mapfile -t COMPREPLY < <(compgen -W "none aes-256-gcm chacha20-poly1305" -- "$cur"); return ;;
    "backup init,--passphrase-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup init,--key-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup init,--passcommand") return ;;
    "backup init,--cache") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup init,-p"|"backup init,--port") return ;;
    "backup init,-i"|"backup init,--identity") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup init,--known-hosts") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup init,--transport") mapfile -t COMPREPLY < <(compgen -W "paramiko openssh local" -- "$cur"); return ;;
    "backup init,--remote-command") return ;;
    "backup create,--tag") return ;;
    "backup create,--tracker") mapfile -t COMPREPLY < <(compgen -W "auto userfault softdirty content none" -- "$cur"); return ;;
    "backup create,-f"|"backup create,--format") mapfile -t COMPREPLY < <(compgen -W "table json" -- "$cur"); return ;;
    "backup create,--passphrase-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup create,--key-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup create,--passcommand") return ;;
    "backup create,--cache") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup create,-p"|"backup create,--port") return ;;
    "backup create,-i"|"backup create,--identity") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup create,--known-hosts") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup create,--transport") mapfile -t COMPREPLY < <(compgen -W "paramiko openssh local" -- "$cur"); return ;;
    "backup create,--remote-command") return ;;
    "backup list,--container") return ;;
    "backup list,--tag") return ;;
    "backup list,-f"|"backup list,--format") mapfile -t COMPREPLY < <(compgen -W "table json" -- "$cur"); return ;;
    "backup list,--passphrase-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup list,--key-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup list,--passcommand") return ;;
    "backup list,--cache") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup list,-p"|"backup list,--port") return ;;
    "backup list,-i"|"backup list,--identity") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup list,--known-hosts") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup list,--transport") mapfile -t COMPREPLY < <(compgen -W "paramiko openssh local" -- "$cur"); return ;;
    "backup list,--remote-command") return ;;
    "backup show,-f"|"backup show,--format") mapfile -t COMPREPLY < <(compgen -W "table json" -- "$cur"); return ;;
    "backup show,--passphrase-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup show,--key-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup show,--passcommand") return ;;
    "backup show,--cache") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup show,-p"|"backup show,--port") return ;;
    "backup show,-i"|"backup show,--identity") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup show,--known-hosts") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup show,--transport") mapfile -t COMPREPLY < <(compgen -W "paramiko openssh local" -- "$cur"); return ;;
    "backup show,--remote-command") return ;;
    "backup restore,--container") return ;;
    "backup restore,--as") return ;;
    "backup restore,-b"|"backup restore,--bundle") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup restore,--passphrase-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup restore,--key-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup restore,--passcommand") return ;;
    "backup restore,--cache") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup restore,-p"|"backup restore,--port") return ;;
    "backup restore,-i"|"backup restore,--identity") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup restore,--known-hosts") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup restore,--transport") mapfile -t COMPREPLY < <(compgen -W "paramiko openssh local" -- "$cur"); return ;;
    "backup restore,--remote-command") return ;;
    "backup verify,-f"|"backup verify,--format") mapfile -t COMPREPLY < <(compgen -W "table json" -- "$cur"); return ;;
    "backup verify,--passphrase-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup verify,--key-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup verify,--passcommand") return ;;
    "backup verify,--cache") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup verify,-p"|"backup verify,--port") return ;;
    "backup verify,-i"|"backup verify,--identity") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup verify,--known-hosts") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup verify,--transport") mapfile -t COMPREPLY < <(compgen -W "paramiko openssh local" -- "$cur"); return ;;
    "backup verify,--remote-command") return ;;
    "backup diff,-f"|"backup diff,--format") mapfile -t COMPREPLY < <(compgen -W "table json" -- "$cur"); return ;;
    "backup diff,--passphrase-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup diff,--key-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup diff,--passcommand") return ;;
    "backup diff,--cache") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup diff,-p"|"backup diff,--port") return ;;
    "backup diff,-i"|"backup diff,--identity") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup diff,--known-hosts") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup diff,--transport") mapfile -t COMPREPLY < <(compgen -W "paramiko openssh local" -- "$cur"); return ;;
    "backup diff,--remote-command") return ;;
    "backup forget,--keep-last") return ;;
    "backup forget,--keep-hourly") return ;;
    "backup forget,--keep-daily") return ;;
    "backup forget,--keep-weekly") return ;;
    "backup forget,--keep-monthly") return ;;
    "backup forget,--keep-yearly") return ;;
    "backup forget,--keep-within") return ;;
    "backup forget,--keep-tag") return ;;
    "backup forget,--container") return ;;
    "backup forget,--tag") return ;;
    "backup forget,-f"|"backup forget,--format") mapfile -t COMPREPLY < <(compgen -W "table json" -- "$cur"); return ;;
    "backup forget,--passphrase-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup forget,--key-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup forget,--passcommand") return ;;
    "backup forget,--cache") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup forget,-p"|"backup forget,--port") return ;;
    "backup forget,-i"|"backup forget,--identity") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup forget,--known-hosts") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup forget,--transport") mapfile -t COMPREPLY < <(compgen -W "paramiko openssh local" -- "$cur"); return ;;
    "backup forget,--remote-command") return ;;
    "backup prune,--max-unused") return ;;
    "backup prune,-f"|"backup prune,--format") mapfile -t COMPREPLY < <(compgen -W "table json" -- "$cur"); return ;;
    "backup prune,--passphrase-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup prune,--key-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup prune,--passcommand") return ;;
    "backup prune,--cache") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup prune,-p"|"backup prune,--port") return ;;
    "backup prune,-i"|"backup prune,--identity") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup prune,--known-hosts") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup prune,--transport") mapfile -t COMPREPLY < <(compgen -W "paramiko openssh local" -- "$cur"); return ;;
    "backup prune,--remote-command") return ;;
    "backup repair,-f"|"backup repair,--format") mapfile -t COMPREPLY < <(compgen -W "table json" -- "$cur"); return ;;
    "backup repair,--passphrase-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup repair,--key-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup repair,--passcommand") return ;;
    "backup repair,--cache") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup repair,-p"|"backup repair,--port") return ;;
    "backup repair,-i"|"backup repair,--identity") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup repair,--known-hosts") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup repair,--transport") mapfile -t COMPREPLY < <(compgen -W "paramiko openssh local" -- "$cur"); return ;;
    "backup repair,--remote-command") return ;;
    "backup unlock,--passphrase-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup unlock,--key-file") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup unlock,--passcommand") return ;;
    "backup unlock,--cache") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup unlock,-p"|"backup unlock,--port") return ;;
    "backup unlock,-i"|"backup unlock,--identity") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup unlock,--known-hosts") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "backup unlock,--transport") mapfile -t COMPREPLY < <(compgen -W "paramiko openssh local" -- "$cur"); return ;;
    "backup unlock,--remote-command") return ;;
    esac
    case $verb in
    "") mapfile -t COMPREPLY < <(compgen -W "create start run exec state list ps kill delete pause resume spec features checkpoint restore migrate dirty-rate drain recover doctor backup job --root --log --log-format --debug --systemd-cgroup --rootless --cgroup-manager -h --help -v --version" -- "$cur") ;;
    "create") mapfile -t COMPREPLY < <(compgen -W "-b --bundle -f --config --console-socket --pidfd-socket --pid-file --no-pivot --no-new-keyring --preserve-fds --net --no-subreaper --explain -h --help" -- "$cur") ;;
    "start") if [[ $cur == -* ]]; then mapfile -t COMPREPLY < <(compgen -W "-h --help" -- "$cur"); else mapfile -t COMPREPLY < <(_ocimig_ids "$cur"); fi ;;
    "run") mapfile -t COMPREPLY < <(compgen -W "-b --bundle -f --config --console-socket --pidfd-socket --pid-file --no-pivot --no-new-keyring --preserve-fds --net -d --detach --keep --no-subreaper -h --help" -- "$cur") ;;
    "exec") if [[ $cur == -* ]]; then mapfile -t COMPREPLY < <(compgen -W "--console-socket --pidfd-socket --cwd -e --env -t --tty -u --user -g --additional-gids -p --process -d --detach --pid-file --process-label --apparmor --no-new-privs -c --cap --preserve-fds --cgroup --ignore-paused -h --help" -- "$cur"); else mapfile -t COMPREPLY < <(_ocimig_ids "$cur"); fi ;;
    "state") if [[ $cur == -* ]]; then mapfile -t COMPREPLY < <(compgen -W "-h --help" -- "$cur"); else mapfile -t COMPREPLY < <(_ocimig_ids "$cur"); fi ;;
    "list") mapfile -t COMPREPLY < <(compgen -W "-f --format -q --quiet -h --help" -- "$cur") ;;
    "ps") if [[ $cur == -* ]]; then mapfile -t COMPREPLY < <(compgen -W "-f --format -h --help" -- "$cur"); else mapfile -t COMPREPLY < <(_ocimig_ids "$cur"); fi ;;
    "kill") if [[ $cur == -* ]]; then mapfile -t COMPREPLY < <(compgen -W "-h --help" -- "$cur"); else mapfile -t COMPREPLY < <(_ocimig_ids "$cur"); fi ;;
    "delete") if [[ $cur == -* ]]; then mapfile -t COMPREPLY < <(compgen -W "-f --force -h --help" -- "$cur"); else mapfile -t COMPREPLY < <(_ocimig_ids "$cur"); fi ;;
    "pause") if [[ $cur == -* ]]; then mapfile -t COMPREPLY < <(compgen -W "-h --help" -- "$cur"); else mapfile -t COMPREPLY < <(_ocimig_ids "$cur"); fi ;;
    "resume") if [[ $cur == -* ]]; then mapfile -t COMPREPLY < <(compgen -W "-h --help" -- "$cur"); else mapfile -t COMPREPLY < <(_ocimig_ids "$cur"); fi ;;
    "spec") mapfile -t COMPREPLY < <(compgen -W "-b --bundle --rootless -h --help" -- "$cur") ;;
    "features") mapfile -t COMPREPLY < <(compgen -W "-h --help" -- "$cur") ;;
    "checkpoint") if [[ $cur == -* ]]; then mapfile -t COMPREPLY < <(compgen -W "--image-path --work-path --parent-path -R --leave-running --pre-dump --tcp-established --tcp-skip-in-flight --tcp-close --link-remap --ext-unix-sk --shell-job --file-locks --manage-cgroups-mode --empty-ns --auto-dedup --network-lock --lazy-pages --page-server --status-fd -h --help" -- "$cur"); else mapfile -t COMPREPLY < <(_ocimig_ids "$cur"); fi ;;
    "restore") mapfile -t COMPREPLY < <(compgen -W "-b --bundle --image-path --work-path -d --detach --pid-file --console-socket --no-pivot --no-subreaper --tcp-established --tcp-skip-in-flight --tcp-close --link-remap --ext-unix-sk --shell-job --file-locks --manage-cgroups-mode --empty-ns --auto-dedup --network-lock --lazy-pages --lsm-profile --lsm-mount-context -h --help" -- "$cur") ;;
    "migrate") if [[ $cur == -* ]]; then mapfile -t COMPREPLY < <(compgen -W "-p --port -i --identity --known-hosts --accept-new-host-key --transport --remote-command --remote-root --together -n --dry-run --json --progress --report --max-downtime --max-rounds --max-bandwidth --timeout --on-timeout --auto-converge --post-copy --tracker --streams --compress --forget-retained --tcp-close --file-locks --link-remap --ext-unix-sk --keep-source-files --resume --abort --assume-destination-dead -h --help" -- "$cur"); else mapfile -t COMPREPLY < <(_ocimig_ids "$cur"); fi ;;
    "dirty-rate") if [[ $cur == -* ]]; then mapfile -t COMPREPLY < <(compgen -W "--seconds --tracker --json -h --help" -- "$cur"); else mapfile -t COMPREPLY < <(_ocimig_ids "$cur"); fi ;;
    "drain") mapfile -t COMPREPLY < <(compgen -W "--to --parallel -n --dry-run --keep-going --json -p --port -i --identity --known-hosts --accept-new-host-key --transport --remote-command --remote-root --max-downtime --max-rounds --max-bandwidth --timeout --on-timeout --auto-converge --post-copy --tracker --streams --compress --forget-retained --tcp-close --file-locks --link-remap --ext-unix-sk --keep-source-files -h --help" -- "$cur") ;;
    "recover") if [[ $cur == -* ]]; then mapfile -t COMPREPLY < <(compgen -W "--json -h --help" -- "$cur"); else mapfile -t COMPREPLY < <(_ocimig_ids "$cur"); fi ;;
    "doctor") mapfile -t COMPREPLY < <(compgen -W "--json -h --help" -- "$cur") ;;
    "job run") mapfile -t COMPREPLY < <(compgen -W "--all --dry-run --format --jobs --state -h --help" -- "$cur") ;;
    "job list") mapfile -t COMPREPLY < <(compgen -W "-q --quiet --format --jobs -h --help" -- "$cur") ;;
    "job status") mapfile -t COMPREPLY < <(compgen -W "--format --jobs --state -h --help" -- "$cur") ;;
    "job validate") mapfile -t COMPREPLY < <(compgen -W "--jobs -h --help" -- "$cur") ;;
    "job show") mapfile -t COMPREPLY < <(compgen -W "--jobs -h --help" -- "$cur") ;;
    "job install-timer") mapfile -t COMPREPLY < <(compgen -W "--print --jobs -h --help" -- "$cur") ;;
    "backup init") mapfile -t COMPREPLY < <(compgen -W "--encryption --passphrase-file --key-file --passcommand --cache -p --port -i --identity --known-hosts --accept-new-host-key --transport --remote-command -h --help" -- "$cur") ;;
    "backup create") mapfile -t COMPREPLY < <(compgen -W "--tag --tracker --tcp-close -f --format --passphrase-file --key-file --passcommand --cache -p --port -i --identity --known-hosts --accept-new-host-key --transport --remote-command -h --help" -- "$cur") ;;
    "backup list") mapfile -t COMPREPLY < <(compgen -W "--container --tag -q --quiet -f --format --passphrase-file --key-file --passcommand --cache -p --port -i --identity --known-hosts --accept-new-host-key --transport --remote-command -h --help" -- "$cur") ;;
    "backup show") mapfile -t COMPREPLY < <(compgen -W "--files -f --format --passphrase-file --key-file --passcommand --cache -p --port -i --identity --known-hosts --accept-new-host-key --transport --remote-command -h --help" -- "$cur") ;;
    "backup restore") mapfile -t COMPREPLY < <(compgen -W "--container --as -b --bundle --tcp-close --passphrase-file --key-file --passcommand --cache -p --port -i --identity --known-hosts --accept-new-host-key --transport --remote-command -h --help" -- "$cur") ;;
    "backup verify") mapfile -t COMPREPLY < <(compgen -W "--read-data -f --format --passphrase-file --key-file --passcommand --cache -p --port -i --identity --known-hosts --accept-new-host-key --transport --remote-command -h --help" -- "$cur") ;;
    "backup diff") mapfile -t COMPREPLY < <(compgen -W "-f --format --passphrase-file --key-file --passcommand --cache -p --port -i --identity --known-hosts --accept-new-host-key --transport --remote-command -h --help" -- "$cur") ;;
    "backup forget") mapfile -t COMPREPLY < <(compgen -W "--keep-last --keep-hourly --keep-daily --keep-weekly --keep-monthly --keep-yearly --keep-within --keep-tag --container --tag -n --dry-run --prune -f --format --passphrase-file --key-file --passcommand --cache -p --port -i --identity --known-hosts --accept-new-host-key --transport --remote-command -h --help" -- "$cur") ;;
    "backup prune") mapfile -t COMPREPLY < <(compgen -W "-n --dry-run --max-unused -f --format --passphrase-file --key-file --passcommand --cache -p --port -i --identity --known-hosts --accept-new-host-key --transport --remote-command -h --help" -- "$cur") ;;
    "backup repair") mapfile -t COMPREPLY < <(compgen -W "-f --format --passphrase-file --key-file --passcommand --cache -p --port -i --identity --known-hosts --accept-new-host-key --transport --remote-command -h --help" -- "$cur") ;;
    "backup unlock") mapfile -t COMPREPLY < <(compgen -W "--passphrase-file --key-file --passcommand --cache -p --port -i --identity --known-hosts --accept-new-host-key --transport --remote-command -h --help" -- "$cur") ;;
    backup) mapfile -t COMPREPLY < <(compgen -W "init create list show restore verify diff forget prune repair unlock" -- "$cur") ;;
    job) mapfile -t COMPREPLY < <(compgen -W "run list status validate show install-timer" -- "$cur") ;;
    esac
}

complete -F _ocimig ocimig
