#!/bin/bash
# Makes a machine and runs a script as its first process: machine.sh NAME SCRIPT. The machine has a network namespace,
# which is there, and process, mount, host name, IPC and cgroup namespaces; it ends with this process.
set -euo pipefail
name=$1 script=$2
join() {
  mkdir -p "$1/spegel-$name"
  # A new cpuset has no processors and takes nobody.
  if [ -e "$1/cpuset.cpus" ]; then
    for file in cpuset.cpus cpuset.mems; do cat "$1/$file" >"$1/spegel-$name/$file"; done
  fi
  echo $$ >"$1/spegel-$name/cgroup.procs"
}
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  join /sys/fs/cgroup
else
  for hierarchy in /sys/fs/cgroup/*/; do
    [ ! -e "$hierarchy/cgroup.procs" ] || [ "$(basename "$hierarchy")" = unified ] || join "${hierarchy%/}"
  done
fi
exec nsenter --net="/run/netns/$name" \
  unshare --fork --kill-child --pid --mount --uts --ipc --cgroup --propagation private -- "$script"
