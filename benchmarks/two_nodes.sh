#!/bin/bash
# Train BOOM on two Ray nodes in two network namespaces, and compare the merged model with that of one process.
#
#     sudo PYTHON=.venv/bin/python benchmarks/two_nodes.sh WORKSPACE
#
# Needs root (ip netns), Ray, and a workspace with rows. Trains in two copies of it. Each node has one core for tasks;
# they see each other only by the virtual cable between the namespaces, and share the folder. Add KILL=1 to kill the
# second node in the middle: the trainings go on on the first one.
set -euo pipefail

workspace=${1:?usage: two_nodes.sh WORKSPACE}
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
ray=$(dirname "$python")/ray
folder=$(mktemp -d)
export OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0 HF_HUB_OFFLINE=1
export RAY_AUTH_MODE=disabled
first=continual-1 second=continual-2

clean() {
    for name in $first $second; do
        ip netns pids $name 2>/dev/null | xargs -r kill -9 2>/dev/null || true
        ip netns del $name 2>/dev/null || true
    done
    rm -rf "$folder"
}
trap clean EXIT

ip netns add $first
ip netns add $second
ip link add cable1 netns $first type veth peer name cable2 netns $second
ip -n $first addr add 10.199.0.1/24 dev cable1
ip -n $second addr add 10.199.0.2/24 dev cable2
for name in $first $second; do ip -n $name link set lo up; done
ip -n $first link set cable1 up
ip -n $second link set cable2 up

start() { ip netns exec "$1" "$ray" start "${@:2}" --num-cpus=1 --object-store-memory=200000000 --temp-dir="$folder/$1"; }
start $first --head --node-ip-address=10.199.0.1 --port=6379 --include-dashboard=false
start $second --address=10.199.0.1:6379 --node-ip-address=10.199.0.2

train() { "$python" -m continual train --recipe boom --option ratios=0.25,0.5,0.75,1 "$@"; }
sha() { "$python" -c "from continual import Workspace; print(Workspace('$1').versions()[-1].sha256)"; }
cp -r "$workspace" "$folder/one"
cp -r "$workspace" "$folder/two"

export -f train
export python
if [[ ${KILL:-} ]]; then
    (
        until ls "$folder"/two/.continual/runs/train-*/checkpoint.safetensors >/dev/null 2>&1; do sleep 0.2; done
        ip netns pids $second | xargs -r kill -9
        echo "killed the second node" >&2
    ) &
fi
RAY_ADDRESS=10.199.0.1:6379 ip netns exec $first bash -c "train --executor ray -w '$folder/two'"
train -w "$folder/one"
one=$(sha "$folder/one")
two=$(sha "$folder/two")
echo "one process: $one"
echo "two nodes:   $two"
[[ $one == "$two" ]]
