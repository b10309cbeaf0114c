#!/usr/bin/env bash
# Installs what the tests of the remote engines need, with apt-get: OpenSSH (client and server), Slurm and munge.
#
# A second run finds the programs and does nothing. No service is left running: the tests start their own daemons.
# Where nothing can be installed, this says what is missing and succeeds; the tests that need it are skipped.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

packages=()
all() { # Whether each of the programs is there. `command -v` with many names succeeds if it finds one.
  local program
  for program; do command -v "$program" >/dev/null || return 1; done
}
all ssh ssh-keygen || packages+=(openssh-client)
all sshd || packages+=(openssh-server)
all sbatch squeue slurmctld slurmd || packages+=(slurm-wlm)
all munged || packages+=(munge)
[ ${#packages[@]} = 0 ] && exit 0

skip() {
  echo "engines setup: $1, so ${packages[*]} stays missing and the tests on it are skipped" >&2
  exit 0
}
command -v apt-get >/dev/null || skip "there is no apt-get"
as_root=()
if [ "$(id -u)" != 0 ]; then
  sudo -n true 2>/dev/null || skip "this user may not install packages"
  as_root=(sudo -n)
fi

# One at a time; the second finds that the first is done.
[ -n "${ENGINES_LOCKED-}" ] || ENGINES_LOCKED=1 exec flock "$0" "$0"

# apt-get asks this file before it starts a service; the answer is no. What stood there comes back afterwards.
policy=/usr/sbin/policy-rc.d
restore() {
  "${as_root[@]}" rm -f "$policy"
  ! "${as_root[@]}" test -e "$policy.engines" || "${as_root[@]}" mv "$policy.engines" "$policy"
}
trap restore EXIT
! [ -e "$policy" ] || "${as_root[@]}" mv "$policy" "$policy.engines"
printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
"${as_root[@]}" chmod 755 "$policy"

echo "engines setup: installing ${packages[*]} (once)" >&2
log=$(mktemp)
apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 "$@" >>"$log" 2>&1 </dev/null
}
if ! apt update || ! apt install -y --no-install-recommends "${packages[@]}"; then
  tail -n 20 "$log" >&2
  echo "engines setup: apt-get failed; its whole output is in $log" >&2
  exit 1
fi
rm -f "$log"

# Where systemd runs, the new services must not start with the machine either.
if [ -d /run/systemd/system ]; then
  for package in "${packages[@]}"; do
    case $package in
      openssh-server) services=(ssh.service ssh.socket) ;;
      slurm-wlm) services=(slurmctld.service slurmd.service) ;;
      munge) services=(munge.service) ;;
      *) services=() ;;
    esac
    for service in "${services[@]}"; do
      "${as_root[@]}" systemctl disable --now "$service" >/dev/null 2>&1 || true
    done
  done
fi
