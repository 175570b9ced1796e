#!/bin/bash
# "</s>" and "<s>" inside the text: Hugging Face's tokenizer makes tokens of them, te reads text, and said nothing.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

FINETUNE=(finetune --model "$DEMO" --batch-size 1 --warmup-steps 0 --lr 0 --precision fp32 --output "$W/o")
echo '{"text": "### Human: Hi### Assistant: Yes</s>"}' >"$W/d.jsonl"
run "${FINETUNE[@]}" --data "$W/d.jsonl" --steps 1
expect_code 0
# Hugging Face's loss is 12.9623: the run says why its own differs.
expect_line OUT 'loss 13\.1649'
expect_line ERR 'warning: .*d.jsonl: special tokens are read as text: </s> 1 time from line 1 on; Hugging Face'
expect_lines ERR 1

printf '{"text": "a"}\n{"text": "a</s>b<s></s>"}\n' >"$W/d.jsonl"
run "${FINETUNE[@]}" --data "$W/d.jsonl" --steps 4
expect_line ERR '<s> 1 time from line 2 on, </s> 2 times from line 2 on'
expect_lines ERR 1
# What the run does not see is not counted.
run "${FINETUNE[@]}" --data "$W/d.jsonl" --steps 1
expect_no_line ERR 'special tokens'

# Plain text, and names that tokenizer_config.json adds.
cp -r "$DEMO" "$W/m"
chmod -R u+w "$W/m"
sed -i 's/"add_eos_token": true/"add_eos_token": true, "added_tokens_decoder": {"640": {"content": "<|im_end|>", "special": true}}/' \
  "$W/m/tokenizer_config.json"
echo 'Hi<|im_end|> there' >"$W/d.txt"
run finetune --model "$W/m" --data "$W/d.txt" --batch-size 1 --steps 1 --warmup-steps 0 --lr 0 --output "$W/o"
expect_code 0
expect_line ERR '<\|im_end\|> 1 time'

# A prompt is text, too.
run generate --model "$DEMO" --prompt '<s>Once' --max-new-tokens 2
expect_code 0
expect_line ERR 'warning: --prompt: special tokens are read as text: <s> 1 time; '
run generate --model "$DEMO" --prompt 'Once' --max-new-tokens 2
expect_lines ERR 0
finish
