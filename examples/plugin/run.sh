#!/usr/bin/env bash
# The way from a profile to a bundle with the space, the runtime and the dataset of this package, in the present folder.
set -euo pipefail
target=this/plugin-runtime
hwnas profile --space plugin-space --channels 1 --classes 2 --target "$target" --networks 4 --bound-networks 0
hwnas train --space plugin-space --data plugin-data --steps 30 --out supernet
hwnas search --supernet supernet --target "$target" --budget 100% --no-margin --subnets 8 --images 64 --candidates 2 --out arch.json
hwnas export arch.json --supernet supernet --target "$target" --out bundle
hwnas verify bundle
