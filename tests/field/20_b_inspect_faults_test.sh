#!/bin/bash
# te inspect names each fault of a checkpoint and ends with code 2 then.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

tiny "$W/m" --two-shards
run inspect --model "$W/m"
expect_code 0
expect_line OUT '^weights: 21 tensors in model-00001'
rm "$W/m/model-00002-of-00002.safetensors"
run inspect --model "$W/m"
expect_code 2
expect_line ERR 'model-00002-of-00002\.safetensors: no such file'
expect_no_line OUT 'weights: none'
expect_line OUT '^weights: 10 tensors in model-00001'
# The tensors of the missing shard are one fault, not eleven.
expect_lines ERR 1

# Two faults at once: a shape and a tensor that is missing.
rm -r "$W/m"
tiny "$W/m" --drop model.norm.weight vocab_size=640
sed -i 's/"intermediate_size": 128/"intermediate_size": 120/' "$W/m/config.json"
run inspect --model "$W/m"
expect_code 2
expect_line ERR 'model\.layers\.0\.mlp\.gate_proj\.weight has shape \[128, 64\]; the config says \[120, 64\] \(intermediate_size, hidden_size\)'
expect_line ERR 'model\.layers\.1\.mlp\.down_proj\.weight has shape'
expect_line ERR 'tensor model\.norm\.weight of shape \[64\] is in none'
expect_lines ERR 7

# A config alone is no fault, and said.
rm "$W"/m/*.safetensors
run inspect --model "$W/m"
expect_code 0
expect_line OUT '^weights: none in .*a config alone'
# Weights that are there under another name are not "none".
touch "$W/m/model-00001-of-00002.safetensors"
run inspect --model "$W/m"
expect_code 2
expect_no_line OUT 'weights: none in'
expect_line ERR 'model\.safetensors\.index\.json\) is missing'
rm "$W/m/model-00001-of-00002.safetensors"
ln -s ../blobs/none "$W/m/model.safetensors"
run inspect --model "$W/m"
expect_code 2
expect_line ERR 'model\.safetensors: no such file \(a symbolic link that leads nowhere'

# Surplus tensors and layers are warnings, as in loading.
rm -r "$W/m"
tiny "$W/m"
sed -i 's/"num_hidden_layers": 2/"num_hidden_layers": 1/' "$W/m/config.json"
run inspect --model "$W/m"
expect_code 0
expect_line ERR '^warning: the config has fewer layers'
finish
