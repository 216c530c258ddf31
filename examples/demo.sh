#!/usr/bin/env bash
# Run three weekly updates: each week a new domain arrives, and the model learns it.
#
#     bash examples/demo.sh FOLDER
#
# Replaces FOLDER, which then holds the data, the workspace and the report. `make demo` calls this.
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
    # 3: the gate refused an update, and the current version stays. The demo continues.
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
