#!/usr/bin/env bash
# Three weeks in the life of a model: each week a new domain comes in, and the model learns it.
#
#     bash examples/demo.sh FOLDER
#
# Makes FOLDER anew, with the data, the workspace and the report in it. `make demo` calls this.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?usage: demo.sh FOLDER}
began=${BEGAN:-$(date +%s)}

if [[ -e $folder && ! -e $folder/.made-by-demo ]]; then
    echo "$folder exists and is not from an earlier demo. Name another folder." >&2
    exit 2
fi
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder"
touch .made-by-demo

run() {
    printf '\n$ %s\n' "$*"
    local code=0
    "$@" || code=$?
    # 3: the gate refused an update, and the old model stays in service. That is an answer, not a failure.
    ((code == 0 || code == 3)) || exit "$code"
}

echo "Making the data: docstrings of the installed Python packages."
python "$here/docstrings.py" data

run continual init
run continual task add pandas data/pandas

run continual ingest data/stdlib.parquet
run continual update

run continual ingest data/torch.parquet
run continual update

run continual ingest data/sklearn.parquet
run continual update

run continual report --html report.html

seconds=$(($(date +%s) - began))
printf '\nThe report: %s\nThe demo took %d min %d s.\n' "$PWD/report.html" $((seconds / 60)) $((seconds % 60))
