#!/bin/bash
# CSV, TSV or any unknown suffix fell back to plain text in silence: header, ids and quotes were trained.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

FINETUNE=(finetune --model "$DEMO" --output "$W/o" --steps 1 --batch-size 2 --warmup-steps 0)
refused() {
  run "${FINETUNE[@]}" --data "$1"
  expect_code 2
  expect_lines ERR 1
  expect_line ERR "$2"
  expect_line ERR '--data reads JSON lines'
  expect_no_file "$W/o"
}
{
  echo id,text
  for i in $(seq 20); do echo "$i,\"animal $i lives in the wood\""; done
} >"$W/d.csv"
refused "$W/d.csv" 'd.csv: this is a table with the columns id, text, separated by commas.*--data-format text'
cp "$W/d.csv" "$W/d.txt"
refused "$W/d.txt" 'a table with the columns id, text'
cp "$W/d.csv" "$W/d"
refused "$W/d" 'a table with the columns id, text'
tr ',' '\t' <"$W/d.csv" >"$W/d.tsv"
refused "$W/d.tsv" 'separated by tabs'
tail -n +2 "$W/d.csv" >"$W/d.dat"
refused "$W/d.dat" 'a table of 2 columns'
samples 16 | gzip >"$W/d.jsonl"
refused "$W/d.jsonl" 'compressed with gzip; .*unpack it first: gunzip'
samples 16 | python3 -c 'import json, sys; print(json.dumps([json.loads(l) for l in sys.stdin]))' >"$W/d.json"
refused "$W/d.json" 'one JSON array'
samples 1 | python3 -m json.tool >"$W/d.json"
refused "$W/d.json" 'one JSON document over several lines'
samples 16 | python3 -c 'import sys; sys.stdout.buffer.write(sys.stdin.read().encode("utf-16"))' >"$W/d.txt"
refused "$W/d.txt" 'text in UTF-16; .*convert it: iconv'
printf 'PAR1\x15\x04' >"$W/d.parquet"
refused "$W/d.parquet" 'a Parquet file'
python3 -c 'import pickle, sys; pickle.dump([1], open(sys.argv[1], "wb"))' "$W/d.pkl"
refused "$W/d.pkl" 'a Python pickle'
printf '<!DOCTYPE html><html>401</html>' >"$W/d.txt"
refused "$W/d.txt" 'an HTML page'

# JSON lines and text under any name, and from a pipe.
samples 16 >"$W/d.train"
run "${FINETUNE[@]}" --data "$W/d.train"
expect_code 0
expect_line OUT 'JSON lines, 16 samples'
for i in $(seq 4); do echo "Roses are red, Mia, and violets $i are blue."; done >"$W/d.story"
run "${FINETUNE[@]}" --data "$W/d.story"
expect_code 0
expect_line OUT 'plain text, a sample a line, 4 samples'
# Whoever wants the lines of a table says so.
run "${FINETUNE[@]}" --data "$W/d.csv" --data-format text
expect_code 0
expect_line OUT 'plain text, a sample a line, 21 samples'
run "${FINETUNE[@]}" --data "$W/d.train" --data-format text
expect_line OUT 'plain text, a sample a line, 16 samples'
run "${FINETUNE[@]}" --data "$W/d.csv" --data-format jsonl
expect_code 2
expect_line ERR 'd.csv: line 1, column 1: expected a value, found id'
run "${FINETUNE[@]}" --data "$W/d.csv" --data-format csv
expect_code 2
expect_line ERR '--data-format is: "csv"; expected text, jsonl or safetensors'
finish
