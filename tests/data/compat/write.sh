#!/usr/bin/env bash
# Writes the files of this folder with the `hwnas` of the PATH, except those that users write by hand (see README.md).
# Run it in a checkout of the commit that README.md names: files of a later commit prove nothing.
set -euo pipefail
cd "$(dirname "$0")"
export HWNAS_HOME=. OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES=
rm -rf latency_tables job lowered evaluations journals supernet trained stopped extracted finetuned bundle archs \
    fronts study

fixed=(resolution=24 depth_1=1,2 depth_2=1 depth_3=1 kernel_1_1=3,5 kernel_1_2=3 kernel_2_1=3,5 kernel_3_1=3,5
    expansion_1_1=2,3 expansion_1_2=2 expansion_2_1=2,3 expansion_3_1=2)
mobile=(--space mobilenetv3-tiny "${fixed[@]/#/--fix=}")
# Cells of pooling and identities have the fewest weights.
cells=(--space darts-tiny --fix=normal_2_second=1 --fix=reduce_2_second=1)
for node in normal_3 normal_4 normal_5 reduce_3 reduce_4 reduce_5; do
    cells+=("--fix=${node}_inputs=0" "--fix=${node}_first=1")
    [ $node = normal_3 ] || cells+=("--fix=${node}_second=1")
done
several=("${cells[@]}" --fix=normal_2_first=1,2,3 --fix=normal_3_second=1,2,3 --fix=reduce_2_first=1,2,3)
one=("${cells[@]}" --fix=normal_2_first=1 --fix=normal_3_second=1 --fix=reduce_2_first=2)
digits=(--data cluttered-digits)
fp32=compat-board/compat-fp32 int8=compat-board/compat-int8 estimates=compat-board/compat-estimates

# Latency tables: one with two fits, one without a validation, one that is imported.
hwnas profile "${mobile[@]}" --target $fp32 --networks 8 --bound-networks 19
hwnas validate "${mobile[@]}" --target $fp32 --networks 6 --seed 7
hwnas profile "${several[@]}" --channels 1 --classes 10 --target $fp32 --networks 4 --bound-networks 19
hwnas profile "${mobile[@]}" --target $int8 --networks 8 --bound-networks 19
hwnas tables import 24_lookup_table.yaml --format ofa-yaml --target compat-phone/compat-external

# A job that went the whole way; the second time the bundle is timed again if the machine was too noisy.
hwnas compile job.toml --out job
hwnas compile job.toml --out job

# A supernet, and the evaluations that searches leave in its folder.
hwnas train "${mobile[@]}" "${digits[@]}" --recipe training.toml --out supernet
hwnas subnet eval --supernet supernet --random 4 --images 100 --calibration-images 100
net=(--supernet supernet --images 100)
few=(--subnets 12 --candidates 3)
hwnas search "${net[@]}" "${few[@]}" --target $fp32 --budget 90% --explain --front fronts/exact --out archs/exact.json
hwnas search "${net[@]}" "${few[@]}" --target $fp32 --budget 90% --budget params=66000 --strategy evolution \
    --out archs/two-budgets.json
hwnas search "${net[@]}" "${few[@]}" --budget $fp32=90% --budget $int8=95% --family --out archs/family
hwnas search "${net[@]}" "${few[@]}" --target 'compat-board/*' --budget 0.09ms --front fronts/recipes \
    --out archs/recipes.json
hwnas search "${net[@]}" --candidates 3 --target compat-phone/compat-external --budget 90% --no-margin \
    --accuracy accuracies.csv --out archs/imported.json

# Differentiable searches, without their checkpoints.
hwnas search "${mobile[@]}" "${digits[@]}" --strategy fbnet --target $fp32 --budget 90% --recipe relaxed.toml --steps 3 \
    --out archs/relaxed.json
edges=(edge_0_1=2,3 edge_0_2=2,3 edge_1_2=2,3 edge_0_3=2,3 edge_1_3=2,3 edge_2_3=2,3)
hwnas search --space nasbench201-tiny "${edges[@]/#/--fix=}" "${digits[@]}" --strategy gdas --target $estimates \
    --budget 80% --no-margin --recipe relaxed.toml --steps 3 --out archs/relaxed-cells.json
hwnas subnet eval archs/relaxed.json "${net[@]}"
rm -r archs/*.search

# A bundle beside that of the job.
hwnas export archs/exact.json --supernet supernet --target $fp32 --out bundle

# Networks of one arch: extracted, fine-tuned; and a fine-tuning that was killed before its network was written.
hwnas train "${one[@]}" "${digits[@]}" --steps 4 --batch-size 16 --out trained
hwnas subnet extract own-arch.json --supernet trained --calibration-images 100 --out extracted
hwnas subnet finetune --subnet extracted --recipe finetuning.toml --teacher extracted --out finetuned
mkdir stopped && cp finetuned/checkpoint.safetensors stopped/

# A study of networks that are trained from scratch.
hwnas study "${several[@]}" "${digits[@]}" --target $fp32 --budget 100% --steps 4 --epochs 2 --trials 3 --images 100 \
    --out study

# What is large, and what no verb opens again: pages, pictures, records of finished work. A stage lists its files.
rm -rf lowered evaluations journals trained job/report.html job/stages/export-*/{largest,best_random} fronts/*/front.svg
find . \( -name .lock -o -name '.*.lock' \) -delete
find job supernet finetuned study \( -name checkpoint.safetensors -o -name tensorboard -o -name ops.jsonl \
    -o -name networks.jsonl \) -prune -exec rm -r {} +
for listing in job/stages/*/files.json; do
    python3 - "$listing" <<'PYTHON'
import json, pathlib, sys
path = pathlib.Path(sys.argv[1])
listed = {name: digest for name, digest in json.loads(path.read_text()).items() if (path.parent / name).exists()}
path.write_text(json.dumps(listed, indent=2, sort_keys=True) + "\n")
PYTHON
done
