#!/bin/bash
# Output on a full disk: lost in silence, with exit code 0.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

for ids in "" --output-ids; do
  COMMAND="te generate $ids >/dev/full"
  ERR=$("$TE" generate --model "$DEMO" --prompt Once --max-new-tokens 5 $ids 2>&1 >/dev/full)
  CODE=$?
  OUT=
  expect_code 1
  expect_lines ERR 1
  expect_line ERR 'No space left on device'
done
finish
