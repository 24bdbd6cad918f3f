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
    case $verb in archive)
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
    "checkpoint,--export") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "checkpoint,--compress") mapfile -t COMPREPLY < <(compgen -W "zstd gzip none" -- "$cur"); return ;;
    "checkpoint,--sign") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "checkpoint,--base") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "checkpoint,--image-name") return ;;
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
    "restore,--import") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "restore,--allowed-signers") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "restore,--signer") return ;;
    "restore,--allow") mapfile -t COMPREPLY < <(compgen -W "mounts files devices hooks sysctls namespaces cgroup annotations capabilities unconfined labels mappings network all" -- "$cur"); return ;;
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
    "archive show,--allowed-signers") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "archive show,--signer") return ;;
    "archive verify,--allowed-signers") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    "archive verify,--signer") return ;;
    "archive convert,--compress") mapfile -t COMPREPLY < <(compgen -W "zstd gzip none" -- "$cur"); return ;;
    esac
    case $verb in
    "") mapfile -t COMPREPLY < <(compgen -W "create start run exec state list ps kill delete pause resume spec features checkpoint restore migrate dirty-rate drain recover doctor archive --root --log --log-format --debug --systemd-cgroup --rootless --cgroup-manager -h --help -v --version" -- "$cur") ;;
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
    "checkpoint") if [[ $cur == -* ]]; then mapfile -t COMPREPLY < <(compgen -W "--image-path --work-path --parent-path -R --leave-running --pre-dump --tcp-established --tcp-skip-in-flight --tcp-close --link-remap --ext-unix-sk --shell-job --file-locks --manage-cgroups-mode --empty-ns --auto-dedup --network-lock --lazy-pages --page-server --status-fd --export --compress --sign --base --image-name --ignore-rootfs -h --help" -- "$cur"); else mapfile -t COMPREPLY < <(_ocimig_ids "$cur"); fi ;;
    "restore") mapfile -t COMPREPLY < <(compgen -W "-b --bundle --image-path --work-path -d --detach --pid-file --console-socket --no-pivot --no-subreaper --tcp-established --tcp-skip-in-flight --tcp-close --link-remap --ext-unix-sk --shell-job --file-locks --manage-cgroups-mode --empty-ns --auto-dedup --network-lock --lazy-pages --lsm-profile --lsm-mount-context --import --allowed-signers --signer --allow --plan -h --help" -- "$cur") ;;
    "migrate") if [[ $cur == -* ]]; then mapfile -t COMPREPLY < <(compgen -W "-p --port -i --identity --known-hosts --accept-new-host-key --transport --remote-command --remote-root --together -n --dry-run --json --progress --report --max-downtime --max-rounds --max-bandwidth --timeout --on-timeout --auto-converge --post-copy --tracker --streams --compress --forget-retained --tcp-close --file-locks --link-remap --ext-unix-sk --keep-source-files --resume --abort --assume-destination-dead -h --help" -- "$cur"); else mapfile -t COMPREPLY < <(_ocimig_ids "$cur"); fi ;;
    "dirty-rate") if [[ $cur == -* ]]; then mapfile -t COMPREPLY < <(compgen -W "--seconds --tracker --json -h --help" -- "$cur"); else mapfile -t COMPREPLY < <(_ocimig_ids "$cur"); fi ;;
    "drain") mapfile -t COMPREPLY < <(compgen -W "--to --parallel -n --dry-run --keep-going --json -p --port -i --identity --known-hosts --accept-new-host-key --transport --remote-command --remote-root --max-downtime --max-rounds --max-bandwidth --timeout --on-timeout --auto-converge --post-copy --tracker --streams --compress --forget-retained --tcp-close --file-locks --link-remap --ext-unix-sk --keep-source-files -h --help" -- "$cur") ;;
    "recover") if [[ $cur == -* ]]; then mapfile -t COMPREPLY < <(compgen -W "--json -h --help" -- "$cur"); else mapfile -t COMPREPLY < <(_ocimig_ids "$cur"); fi ;;
    "doctor") mapfile -t COMPREPLY < <(compgen -W "--json -h --help" -- "$cur") ;;
    "archive show") mapfile -t COMPREPLY < <(compgen -W "--allowed-signers --signer --members --json -h --help" -- "$cur") ;;
    "archive verify") mapfile -t COMPREPLY < <(compgen -W "--allowed-signers --signer -h --help" -- "$cur") ;;
    "archive convert") mapfile -t COMPREPLY < <(compgen -W "--compress --oci -h --help" -- "$cur") ;;
    archive) mapfile -t COMPREPLY < <(compgen -W "show verify convert" -- "$cur") ;;
    esac
}

complete -F _ocimig ocimig
