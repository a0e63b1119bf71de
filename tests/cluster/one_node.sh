#!/bin/sh
# One-node SLURM of this machine, below a folder: one_node.sh start FOLDER, one_node.sh stop FOLDER.
# Needs root and Debian's packages: apt-get install munge slurmctld slurmd
# While it runs, /etc/slurm/slurm.conf is a link into FOLDER; nothing else outside it is written.
set -eu
folder=$(realpath "$2")
conf=/etc/slurm/slurm.conf
if [ "$1" = stop ]; then
    for pid in "$folder"/*.pid; do kill "$(cat "$pid")" || true; done
    rm "$conf"
    exit
fi
if [ -e "$conf" ]; then
    echo "this machine has a SLURM already: $conf" >&2
    exit 1
fi
mkdir -p "$folder/state" "$folder/spool"
chmod 755 "$folder"
dd if=/dev/urandom of="$folder/munge.key" bs=1024 count=1 status=none
chmod 400 "$folder/munge.key"
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"
cat > "$folder/slurm.conf" <<EOF
ClusterName=one
SlurmctldHost=$(hostname)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmctldPort=17817
SlurmdPort=17818
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MinJobAge=3600
NodeName=$(hostname) CPUs=$(getconf _NPROCESSORS_ONLN) RealMemory=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
mkdir -p /etc/slurm
ln -s "$folder/slurm.conf" "$conf"
slurmctld
slurmd
for _ in $(seq 30); do
    sinfo --noheader --states=idle | grep -q . && exit
    sleep 1
done
echo "the node did not come up: see $folder/*.log" >&2
exit 1
