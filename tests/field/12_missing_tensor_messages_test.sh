#!/bin/bash
# A tensor that is not there: the message shows the names that the file has, their prefix, and the tie of the head.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

refused() { run finetune --model "$W/m" --steps 0 --output "$W/o"; expect_code 2; expect_lines ERR 1; expect_no_file "$W/o"; }

tiny "$W/m" --prefix module.
refused
expect_line ERR 'names begin with "module\." \(module\.(lm_head|model\.embed_tokens)\.weight\), as those of PyTorch.s DataParallel'
rm -r "$W/m"

tiny "$W/m" --prefix _orig_mod.
refused
expect_line ERR 'names begin with "_orig_mod\.".*torch\.compile'
rm -r "$W/m"

tiny "$W/m" --prefix base_model.model.
refused
expect_line ERR 'names begin with "base_model\.model\.".*PEFT.*merge_and_unload'
rm -r "$W/m"

tiny "$W/m" --drop lm_head.weight
refused
expect_line ERR 'lm_head\.weight .*tie_word_embeddings is false in config\.json: set it to true if the head is the embedding'
run inspect --model "$W/m"
expect_code 2
expect_line ERR 'tie_word_embeddings is false'
rm -r "$W/m"

# The head alone, of a model that is not said to be tied.
tiny "$W/m" --head-only
refused
expect_line ERR 'model\.embed_tokens\.weight .*tie_word_embeddings is false'
rm -r "$W/m"

tiny "$W/m" --drop model.layers.1.mlp.up_proj.weight
refused
expect_line ERR 'model\.layers\.1\.mlp\.up_proj\.weight of shape \[128, 64\] .*nearest names that it has: model\.layers\.0\.mlp\.up_proj\.weight'
rm -r "$W/m"

tiny "$W/m" num_hidden_layers=2
sed -i 's/"num_hidden_layers": 2/"num_hidden_layers": 4/' "$W/m/config.json"
refused
expect_line ERR 'model\.layers\.2\..*nor are 17 others of the model'
# With --allow-missing what is missing is drawn at random, and said; but not a whole model.
run finetune --model "$W/m" --steps 0 --output "$W/o" --allow-missing
expect_code 0
expect_line ERR 'not in the checkpoint, initialized instead: model\.layers\.2\.'
rm -r "$W/m" "$W/o"
tiny "$W/m" --prefix module.
run finetune --model "$W/m" --steps 0 --output "$W/o" --allow-missing
expect_code 2
expect_line ERR 'nor is any other of the model.s 21 tensors'
finish
