#!/usr/bin/env bash
# Machines to reach by ssh, all on this one: sshd.sh DIR [COUNT] [start|stop|start-one N|kill-one N]
#
# Each of COUNT (3) daemons has its own loopback address: host1 is 127.0.0.2, host2 is 127.0.0.3. All take one port.
# `ssh -F DIR/ssh_config -o StrictHostKeyChecking=yes host1 env` reaches the first. Nothing outside DIR is written.
# A session gets the lines NAME=value of DIR/env-N, which the daemon reads when it starts, and a cache of its own.
# Runs as root or as any user. The daemons' files and logs are in DIR/sshd.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
usage() { sed -n '2s/^# //p' "$0" >&2 && exit 2; }
[ $# -ge 1 ] || usage
dir=$(realpath -m -- "$1")
shift
count=3
if [[ ${1-} =~ ^[0-9]+$ ]]; then count=$1 && shift; fi
command=${1-start} own=$dir/sshd
die() { echo "sshd.sh: $*; the logs are $own/*.log" >&2 && exit 1; }

# The processes of machine N: its daemon, those it marked, and all below them. The mark survives a lost parent.
processes() { # N
  roots=$(grep -lzxF -- "PIPELINE_TEST_MACHINE=$dir/host$1" /proc/[0-9]*/environ 2>/dev/null | tr -dc '0-9\n' || true)
  for file in /proc/[0-9]*/fd/2; do
    [ "$file" -ef "$own/host$1.log" ] || continue
    file=${file%/fd/2}
    [[ $(cat "$file/comm" 2>/dev/null) != sshd* ]] || roots+=" ${file#/proc/}"
  done
  { grep -H ^PPid: /proc/[0-9]*/status 2>/dev/null || true; } | tr -c '0-9\n' ' ' | awk -v roots="$roots" '
    { parent[$1] = $2 } END {
      for (n = split(roots, root); n; n--) found[root[n]]
      do {
        more = 0
        for (pid in parent) if (!(pid in found) && parent[pid] in found) more = found[pid] = 1
      } while (more)
      for (pid in found) print pid
    }'
}

# Loses the power of machine N. All of it stops before any of it dies, so that nothing can react or escape.
kill_one() { # N
  local found signal before=
  while mapfile -t found < <(processes "$1" | sort -rn) && [ ${#found[@]} -gt 0 ]; do
    # The death of a parent can wake its children, so the youngest die first.
    [ "${found[*]}" = "$before" ] && signal=KILL || signal=STOP
    kill -$signal "${found[@]}" 2>/dev/null || true
    before=${found[*]}
  done
  rm -f "$own/host$1.pid"
}

# Starts machine N. Fails if its daemon ends at once, as it does when somebody else has its port.
start_one() { # N
  local conf=$own/host$1.conf environment line daemon
  [ -f "$own/host$1.key" ] || die "there is no host$1 in $dir"
  mkdir -p "$dir/host$1"/{cache,config}
  environment=("PIPELINE_TEST_HOST=host$1" "PIPELINE_TEST_MACHINE=$dir/host$1"
    "XDG_CACHE_HOME=$dir/host$1/cache" "XDG_CONFIG_HOME=$dir/host$1/config")
  while IFS= read -r line || [ -n "$line" ]; do
    [[ $line != [A-Za-z_]*=* ]] || environment+=("$line")
  done < <(cat "$dir/env-$1" 2>/dev/null)
  # The first SetEnv counts, so all stand on one line.
  line=SetEnv
  for each in "${environment[@]}"; do
    each=${each//\\/\\\\}
    line+=" \"${each//\"/\\\"}\""
  done
  cat >"$conf" <<EOF
ListenAddress 127.0.0.$(($1 + 1)):$(cat "$dir/port")
HostKey "$own/host$1.key"
PidFile "$own/host$1.pid"
AuthorizedKeysFile "$dir/authorized_keys"
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 200
PrintMotd no
PrintLastLog no
Subsystem sftp internal-sftp
$line
EOF
  # Newer daemons shut out an address whose keys they refused.
  ! "$sshd" -t -f "$conf" -o PerSourcePenalties=no 2>/dev/null || echo 'PerSourcePenalties no' >>"$conf"
  setsid "$sshd" -D -e -f "$conf" </dev/null >>"$own/host$1.log" 2>&1 &
  daemon=$!
  for _ in {1..250}; do
    # The daemon writes its pid when it listens.
    [ ! -s "$own/host$1.pid" ] || return 0
    kill -0 "$daemon" 2>/dev/null || return 1
    sleep 0.02
  done
  return 1
}

stop() {
  local key
  for key in "$own"/host*.key; do
    [ ! -f "$key" ] || { key=${key##*/host} && kill_one "${key%.key}"; }
  done
}

start() {
  local n attempt
  stop
  rm -rf "$own" && mkdir -p "$own"
  [ -f "$dir/client_key" ] || ssh-keygen -q -t ed25519 -N '' -C pipeline-test -f "$dir/client_key"
  cp "$dir/client_key.pub" "$dir/authorized_keys"
  for ((n = 1; n <= count; n++)); do ssh-keygen -q -t ed25519 -N '' -C "host$n" -f "$own/host$n.key"; done
  for attempt in {1..5}; do
    # Below the ports that the kernel gives to clients, so that only another test can be in the way.
    echo $((20001 + RANDOM % 6000)) >"$dir/port"
    for ((n = 1; n <= count; n++)); do start_one "$n" || break; done
    [ "$n" -le "$count" ] || break
    stop
    if [ "$attempt" = 5 ] || ! grep -qs 'Address already in use' "$own/host$n.log"; then die "host$n does not start"; fi
  done
  : >"$dir/known_hosts" && : >"$dir/ssh_config"
  for ((n = 1; n <= count; n++)); do
    echo "[127.0.0.$((n + 1))]:$(cat "$dir/port") $(cut -d' ' -f1,2 "$own/host$n.key.pub")" >>"$dir/known_hosts"
    printf 'Host host%s\n  HostName 127.0.0.%s\n' "$n" "$((n + 1))" >>"$dir/ssh_config"
  done
  cat >>"$dir/ssh_config" <<EOF
Host *
  Port $(cat "$dir/port")
  User $(id -un)
  IdentityFile "$dir/client_key"
  IdentitiesOnly yes
  UserKnownHostsFile "$dir/known_hosts"
  GlobalKnownHostsFile /dev/null
EOF
}

sshd=$(command -v sshd) || die "there is no sshd; scripts/engines/setup.sh installs it"
# The daemon of root keeps an empty folder here.
[ "$(id -u)" != 0 ] || mkdir -p /run/sshd
case $command in
  start | stop) "$command" ;;
  start-one) kill_one "${2:?N}" && { start_one "$2" || die "host$2 does not start"; } ;;
  kill-one) kill_one "${2:?N}" ;;
  *) usage ;;
esac
