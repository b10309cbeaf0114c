#!/usr/bin/env bash
# A Slurm on this machine: slurm.sh DIR start|stop|{start,kill,restart}-controller|{start,kill,cut}-node NAME
#
# Nodes cpu1, cpu2 and gpu1 have two CPUs each; gpu1 has a GPU and the feature `gpu`. Partitions: `main` (all nodes),
# `gpu` (gpu1), and `urgent` (all nodes), whose jobs take the place of those in `main`.
# DIR/submit is the login node: `DIR/submit sbatch --parsable job.sh`. It passes the lines NAME=value of DIR/env.
# Runs as root or as any user. Configuration, state and logs are in DIR/slurm, ports are on loopback.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
usage() { sed -n '2s/^# //p' "$0" >&2 && exit 2; }
[ $# -ge 2 ] || usage
dir=$(realpath -m -- "$1")
command=$2 own=$dir/slurm nodes=(cpu1 cpu2 gpu1) host=$(hostname -s)
export SLURM_CONF=$own/slurm.conf
die() { echo "slurm.sh: $*; the logs are $own/log/*" >&2 && exit 1; }

# The processes of one part (controller, munge, or a node): its daemons, which have its log open, those marked as jobs
# of the node, and all below them. A mark survives a lost parent.
processes() { # PART
  roots=$(grep -lzxF -- "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ 2>/dev/null |
    xargs -r grep -lszxF -- "SLURMD_NODENAME=$1" | tr -dc '0-9\n' || true)
  for file in /proc/[0-9]*/fd/[0-9]*; do
    [[ $file -ef $own/log/$1.log && $(cat "${file%/fd/*}/comm" 2>/dev/null) == @(slurm|munged)* ]] || continue
    file=${file%/fd/*} && roots+=" ${file#/proc/}"
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
gone() { [ -z "$(processes "$1")" ]; } # PART

# Takes the power from a part. All of it stops before any of it dies, so that nothing can react or escape.
kill_part() { # PART
  local found signal before=
  while mapfile -t found < <(processes "$1" | sort -rn) && [ ${#found[@]} -gt 0 ]; do
    # The death of a parent can wake its children, so the youngest die first.
    [ "${found[*]}" = "$before" ] && signal=KILL || signal=STOP
    kill -$signal "${found[@]}" 2>/dev/null || true
    before=${found[*]}
  done
}

# Starts a daemon with the environment of a machine that just came up, and none of the caller's files.
daemon() { env -i PATH="$PATH" SLURM_CONF="$SLURM_CONF" "$@" </dev/null >>"$own/log/output.log" 2>&1; }

# Waits until the command succeeds, which it never does when somebody else has the port.
wait_for() { # SECONDS COMMAND...
  local end=$((SECONDS + $1)) && shift
  until "$@" 2>/dev/null; do
    [ $SECONDS -lt $end ] && ! grep -qs 'Address already in use' "$own"/log/* || return 1
    sleep 0.1
  done
}
up() { # NODES COUNT
  [ "$(timeout 2 sinfo -h -N -p main -n "$1" -o %T | grep -cxE 'idle|mixed|allocated|completing')" = "$2" ]
}
start_controller() { daemon slurmctld "$@" && wait_for 15 timeout 2 sinfo -h >/dev/null; } # [OPTION]

# Brings a node back: one that was cut off goes on, one that was killed comes up without its jobs.
start_node() { # NAME
  local pids
  mapfile -t pids < <(processes "$1")
  if ! kill -CONT "${pids[@]}" 2>/dev/null; then
    # Slurm tells by the uptime that a node lost its jobs. That of this machine tells nothing, so it has to be said.
    scontrol update "NodeName=$1" State=DOWN Reason='power lost' 2>/dev/null || true
    daemon slurmd -N "$1"
  fi
  wait_for 1 up "$1" 1 || { scontrol update "NodeName=$1" State=RESUME && wait_for 10 up "$1" 1; }
}

# Cuts the node off: its daemons stand still and answer nobody, but its jobs go on.
cut_node() { # NAME
  for each in $(processes "$1"); do
    [[ $(cat "/proc/$each/comm" 2>/dev/null) != slurm@(d|stepd) ]] || kill -STOP "$each"
  done
}
stop() { for each in controller "${nodes[@]}" munge; do kill_part "$each"; done; }

start_all() { # PORT
  local cgroup=disabled node="NodeHostname=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000"
  rm -rf "$own" && mkdir -p "$own"/{log,state,cpu1,cpu2,gpu1} "$dir/home"
  # No cgroup is used, but Slurm before 23.02 insists on a plugin for them.
  ! [[ $(slurmd -V) =~ ([0-9]+)\.([0-9]+) && ${BASH_REMATCH[1]}${BASH_REMATCH[2]} -lt 2302 ]] || cgroup=cgroup/v1
  echo "CgroupPlugin=$cgroup" >"$own/cgroup.conf"
  echo 'NodeName=gpu1 Name=gpu File=/dev/zero' >"$own/gres.conf"
  # A requeued job waits for cred_expire before it starts again; 5 is the least.
  tr ' ' '\n' >"$SLURM_CONF" <<EOF
ClusterName=pipeline SlurmUser=$(id -un) SlurmdUser=$(id -un) SlurmctldHost=$host(127.0.0.1) SlurmctldPort=$1
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny AuthInfo=socket=$own/munge.sock,cred_expire=5
StateSaveLocation=$own/state SlurmdSpoolDir=$own/%n SlurmctldPidFile=$own/controller.pid SlurmdPidFile=$own/%n.pid
SlurmctldLogFile=$own/log/controller.log SlurmdLogFile=$own/log/%n.log
ProctrackType=proctrack/linuxproc SelectType=select/cons_tres SelectTypeParameters=CR_CPU GresTypes=gpu
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1 SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio PreemptMode=REQUEUE JobRequeue=1 MinJobAge=10 MaxArraySize=8
SlurmdTimeout=6 MessageTimeout=5 TCPTimeout=2 BatchStartTimeout=3 KillWait=2 ReturnToService=2
EOF
  cat >>"$SLURM_CONF" <<EOF
NodeName=cpu[1-2] $node Port=[$(($1 + 1))-$(($1 + 2))]
NodeName=gpu1 $node Port=$(($1 + 3)) Features=gpu Gres=gpu:1
PartitionName=main Nodes=ALL Default=YES PriorityTier=1
PartitionName=gpu Nodes=gpu1 PriorityTier=1
PartitionName=urgent Nodes=ALL PriorityTier=10
EOF
  cat >"$dir/submit" <<EOF
#!/usr/bin/env bash
# Runs a command as on a login node, with almost no environment.
mapfile -t more < <(grep -s '^[A-Za-z_][A-Za-z0-9_]*=' $dir/env)
exec env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=$dir/home SLURM_CONF=$SLURM_CONF "\${more[@]}" "\$@"
EOF
  chmod +x "$dir/submit"
  (umask 077 && head -c 1024 /dev/urandom >"$own/munge.key")
  daemon munged --force --socket="$own/munge.sock" --pid-file="$own/munge.pid" --log-file="$own/log/munge.log" \
    --seed-file="$own/munge.seed" --key-file="$own/munge.key" || return 1
  for each in "${nodes[@]}"; do daemon slurmd -N "$each" || return 1; done
  start_controller -c && wait_for 10 up cpu1,cpu2,gpu1 3
}

start() {
  [[ ${#dir} -le 64 && $dir != *[[:space:]]* ]] || die "Slurm needs a folder of at most 64 characters without spaces"
  stop
  for _ in {1..5}; do
    # Below the ports that the kernel gives to clients, so that only another test can be in the way.
    ! start_all $((26001 + 4 * (RANDOM % 1500))) || return 0
    stop
    grep -qs 'Address already in use' "$own"/log/* || break
  done
  die "Slurm does not start"
}

case $command in
  start | stop) "$command" ;;
  kill-controller) kill_part controller ;;
  start-controller | restart-controller)
    # A controller that is asked to end saves its state. One that is killed forgets the last seconds.
    [ "$command" = start-controller ] || { scontrol shutdown slurmctld && wait_for 10 gone controller; } || :
    kill_part controller
    start_controller || die "the controller does not answer"
    ;;
  kill-node) kill_part "${3:?NAME}" ;;
  start-node) start_node "${3:?NAME}" || die "node $3 does not come up" ;;
  cut-node) cut_node "${3:?NAME}" ;;
  *) usage ;;
esac
