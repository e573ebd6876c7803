#!/usr/bin/env bash
# Start a real one-node Slurm (Debian's slurm-wlm and munge) without systemd, for the tests. Run as root.
# Usage: start_slurm.sh DIR   then: export SLURM_CONF=DIR/slurm.conf
# Stop:  kill $(cat DIR/slurmctld.pid DIR/slurmd.pid)
# Exit codes: 0 ready, 77 Slurm cannot be installed here, 1 it does not start.
set -euo pipefail
dir=$(mkdir -p "$1" && cd "$1" && pwd)
host=$(hostname -s)
[ "$(id -u)" = 0 ] || { echo "Slurm's daemons need root" >&2; exit 77; }
if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
    command -v apt-get >/dev/null || { echo "neither Slurm nor apt-get is here" >&2; exit 77; }
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge; } >"$dir/install.log" 2>&1 \
        || { echo "apt-get cannot install slurm-wlm and munge: $(tail -1 "$dir/install.log")" >&2; exit 77; }
fi
mkdir -p "$dir"/{state,spool,log} /run/munge
chown munge:munge /run/munge
if [ ! -s /etc/munge/munge.key ]; then
    head -c 128 /dev/urandom >/etc/munge/munge.key
    chown munge:munge /etc/munge/munge.key
    chmod 400 /etc/munge/munge.key
fi
cat >"$dir/slurm.conf" <<CONF
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=10000
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(free -m | awk '/Mem:/{print int($2*0.8)}') State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$dir/slurm.conf"
munge -n >/dev/null 2>&1 || setsid runuser -u munge -- munged
slurmctld -c
sleep 1
slurmd
for _ in $(seq 40); do
    if sinfo -h -o %t 2>/dev/null | grep -q idle; then
        echo "slurm ready: export SLURM_CONF=$SLURM_CONF"
        exit 0
    fi
    sleep 0.5
done
echo "slurm did not become idle; see $dir/log" >&2
exit 1
