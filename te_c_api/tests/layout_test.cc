// Layout of the ABI, field by field: a field that moves or changes size would break every compiled
// client. Later versions only add lines.
#include <cstddef>

#include "gtest/gtest.h"
#include "te/te.h"

#define EXPECT_FIELD(type, field, offset, size)     \
  EXPECT_EQ(offsetof(type, field), size_t{offset}); \
  EXPECT_EQ(sizeof(type::field), size_t{size})

TEST(Abi, LayoutOf_te_context_options) {
  EXPECT_FIELD(te_context_options, struct_size, 0, 8);
  EXPECT_FIELD(te_context_options, device, 8, 8);
  EXPECT_FIELD(te_context_options, num_threads, 16, 4);
  EXPECT_FIELD(te_context_options, reserved, 20, 4);
  EXPECT_FIELD(te_context_options, seed, 24, 8);
  EXPECT_FIELD(te_context_options, stream, 32, 8);
  EXPECT_FIELD(te_context_options, data_group, 40, 8);
  EXPECT_FIELD(te_context_options, tensor_group, 48, 8);
  EXPECT_FIELD(te_context_options, context_group, 56, 8);
  EXPECT_FIELD(te_context_options, pipeline_group, 64, 8);
  EXPECT_FIELD(te_context_options, expert_group, 72, 8);
  // Version 4:
  EXPECT_FIELD(te_context_options, allow_nondeterministic, 80, 4);
  EXPECT_FIELD(te_context_options, reserved2, 84, 4);
  EXPECT_EQ(sizeof(te_context_options), size_t{88});
}

TEST(Abi, LayoutOf_te_fp8_recipe_options) {
  EXPECT_FIELD(te_fp8_recipe_options, struct_size, 0, 8);
  EXPECT_FIELD(te_fp8_recipe_options, kind, 8, 4);
  EXPECT_FIELD(te_fp8_recipe_options, reserved, 12, 4);
  // Version 2:
  EXPECT_FIELD(te_fp8_recipe_options, margin, 16, 4);
  EXPECT_FIELD(te_fp8_recipe_options, fp8_format, 20, 4);
  EXPECT_FIELD(te_fp8_recipe_options, amax_history_len, 24, 4);
  EXPECT_FIELD(te_fp8_recipe_options, amax_compute_algo, 28, 4);
  EXPECT_FIELD(te_fp8_recipe_options, reduce_amax, 32, 4);
  EXPECT_FIELD(te_fp8_recipe_options, use_power_2_scales, 36, 4);
  EXPECT_FIELD(te_fp8_recipe_options, amax_epsilon, 40, 4);
  EXPECT_FIELD(te_fp8_recipe_options, enable_2d_quantization, 44, 4);
  EXPECT_FIELD(te_fp8_recipe_options, disable_rht, 48, 4);
  EXPECT_FIELD(te_fp8_recipe_options, disable_stochastic_rounding, 52, 4);
  EXPECT_FIELD(te_fp8_recipe_options, disable_2d_quantization, 56, 4);
  EXPECT_FIELD(te_fp8_recipe_options, reserved2, 60, 4);
  // Version 3:
  EXPECT_FIELD(te_fp8_recipe_options, backward_override, 64, 4);
  EXPECT_FIELD(te_fp8_recipe_options, fp8_gemm_fprop_use_split_accumulator, 68, 4);
  EXPECT_FIELD(te_fp8_recipe_options, fp8_gemm_dgrad_use_split_accumulator, 72, 4);
  EXPECT_FIELD(te_fp8_recipe_options, fp8_gemm_wgrad_use_split_accumulator, 76, 4);
  EXPECT_FIELD(te_fp8_recipe_options, x_block_scaling_dim, 80, 4);
  EXPECT_FIELD(te_fp8_recipe_options, w_block_scaling_dim, 84, 4);
  EXPECT_FIELD(te_fp8_recipe_options, grad_block_scaling_dim, 88, 4);
  EXPECT_FIELD(te_fp8_recipe_options, row_scaled_activation, 92, 4);
  EXPECT_FIELD(te_fp8_recipe_options, nvfp4_4over6, 96, 4);
  EXPECT_FIELD(te_fp8_recipe_options, nvfp4_4over6_e4m3_use_256, 100, 4);
  EXPECT_FIELD(te_fp8_recipe_options, nvfp4_4over6_err_mode, 104, 4);
  EXPECT_FIELD(te_fp8_recipe_options, fp8_dpa, 108, 4);
  EXPECT_EQ(sizeof(te_fp8_recipe_options), size_t{112});
}

TEST(Abi, LayoutOf_te_quantization_options) {
  EXPECT_FIELD(te_quantization_options, struct_size, 0, 8);
  EXPECT_FIELD(te_quantization_options, training, 8, 4);
  EXPECT_FIELD(te_quantization_options, calibrating, 12, 4);
  EXPECT_FIELD(te_quantization_options, is_first_microbatch, 16, 4);
  EXPECT_FIELD(te_quantization_options, reserved, 20, 4);
  EXPECT_EQ(sizeof(te_quantization_options), size_t{24});
}

TEST(Abi, LayoutOf_te_layer_options) {
  EXPECT_FIELD(te_layer_options, struct_size, 0, 8);
  EXPECT_FIELD(te_layer_options, kind, 8, 4);
  EXPECT_FIELD(te_layer_options, params_dtype, 12, 4);
  EXPECT_FIELD(te_layer_options, name, 16, 8);
  EXPECT_FIELD(te_layer_options, hidden_size, 24, 8);
  EXPECT_FIELD(te_layer_options, ffn_hidden_size, 32, 8);
  EXPECT_FIELD(te_layer_options, num_attention_heads, 40, 8);
  EXPECT_FIELD(te_layer_options, num_gqa_groups, 48, 8);
  EXPECT_FIELD(te_layer_options, kv_channels, 56, 8);
  EXPECT_FIELD(te_layer_options, in_features, 64, 8);
  EXPECT_FIELD(te_layer_options, out_features, 72, 8);
  EXPECT_FIELD(te_layer_options, vocab_size, 80, 8);
  EXPECT_FIELD(te_layer_options, layernorm_epsilon, 88, 8);
  EXPECT_FIELD(te_layer_options, normalization, 96, 4);
  EXPECT_FIELD(te_layer_options, zero_centered_gamma, 100, 4);
  EXPECT_FIELD(te_layer_options, bias, 104, 4);
  EXPECT_FIELD(te_layer_options, activation, 108, 4);
  EXPECT_FIELD(te_layer_options, self_attn_mask_type, 112, 4);
  EXPECT_FIELD(te_layer_options, attn_input_format, 116, 4);
  EXPECT_FIELD(te_layer_options, window_size_left, 120, 8);
  EXPECT_FIELD(te_layer_options, window_size_right, 128, 8);
  EXPECT_FIELD(te_layer_options, attention_dropout, 136, 8);
  EXPECT_FIELD(te_layer_options, softmax_scale, 144, 8);
  EXPECT_FIELD(te_layer_options, fuse_qkv_params, 152, 4);
  EXPECT_FIELD(te_layer_options, qkv_weight_interleaved, 156, 4);
  EXPECT_FIELD(te_layer_options, input_layernorm, 160, 4);
  EXPECT_FIELD(te_layer_options, reserved, 164, 4);
  EXPECT_FIELD(te_layer_options, hidden_dropout, 168, 8);
  EXPECT_FIELD(te_layer_options, init_method_std, 176, 8);
  EXPECT_FIELD(te_layer_options, label_smoothing, 184, 8);
  // Version 5:
  EXPECT_FIELD(te_layer_options, padding_idx, 192, 8);
  EXPECT_EQ(sizeof(te_layer_options), size_t{200});
}

TEST(Abi, LayoutOf_te_forward_args) {
  EXPECT_FIELD(te_forward_args, struct_size, 0, 8);
  EXPECT_FIELD(te_forward_args, input, 8, 8);
  EXPECT_FIELD(te_forward_args, output, 16, 8);
  EXPECT_FIELD(te_forward_args, key, 24, 8);
  EXPECT_FIELD(te_forward_args, value, 32, 8);
  EXPECT_FIELD(te_forward_args, labels, 40, 8);
  EXPECT_FIELD(te_forward_args, padding_mask, 48, 8);
  EXPECT_FIELD(te_forward_args, arbitrary_mask, 56, 8);
  EXPECT_FIELD(te_forward_args, rotary_cos, 64, 8);
  EXPECT_FIELD(te_forward_args, rotary_sin, 72, 8);
  EXPECT_FIELD(te_forward_args, positions, 80, 8);
  EXPECT_FIELD(te_forward_args, start_position, 88, 8);
  EXPECT_FIELD(te_forward_args, rotary_interleaved, 96, 4);
  EXPECT_FIELD(te_forward_args, reserved, 100, 4);
  EXPECT_EQ(sizeof(te_forward_args), size_t{104});
}

TEST(Abi, LayoutOf_te_backward_args) {
  EXPECT_FIELD(te_backward_args, struct_size, 0, 8);
  EXPECT_FIELD(te_backward_args, doutput, 8, 8);
  EXPECT_FIELD(te_backward_args, dinput, 16, 8);
  EXPECT_FIELD(te_backward_args, dkey, 24, 8);
  EXPECT_FIELD(te_backward_args, dvalue, 32, 8);
  EXPECT_FIELD(te_backward_args, accumulate_gradients, 40, 4);
  EXPECT_FIELD(te_backward_args, delay_weight_gradients, 44, 4);
  EXPECT_FIELD(te_backward_args, gradient_ready, 48, 8);
  EXPECT_FIELD(te_backward_args, user_data, 56, 8);
  EXPECT_EQ(sizeof(te_backward_args), size_t{64});
}

TEST(Abi, LayoutOf_te_optimizer_options) {
  EXPECT_FIELD(te_optimizer_options, struct_size, 0, 8);
  EXPECT_FIELD(te_optimizer_options, beta1, 8, 8);
  EXPECT_FIELD(te_optimizer_options, beta2, 16, 8);
  EXPECT_FIELD(te_optimizer_options, epsilon, 24, 8);
  EXPECT_FIELD(te_optimizer_options, weight_decay, 32, 8);
  EXPECT_FIELD(te_optimizer_options, moments_dtype, 40, 4);
  EXPECT_FIELD(te_optimizer_options, master_weights, 44, 4);
  EXPECT_FIELD(te_optimizer_options, rounding, 48, 4);
  EXPECT_FIELD(te_optimizer_options, reserved, 52, 4);
  EXPECT_EQ(sizeof(te_optimizer_options), size_t{56});
}

TEST(Abi, LayoutOf_te_optimizer_step_args) {
  EXPECT_FIELD(te_optimizer_step_args, struct_size, 0, 8);
  EXPECT_FIELD(te_optimizer_step_args, learning_rate, 8, 8);
  EXPECT_FIELD(te_optimizer_step_args, max_grad_norm, 16, 8);
  EXPECT_FIELD(te_optimizer_step_args, gradient_divisor, 24, 8);
  EXPECT_EQ(sizeof(te_optimizer_step_args), size_t{32});
}

TEST(Abi, LayoutOf_te_llama_options) {
  EXPECT_FIELD(te_llama_options, struct_size, 0, 8);
  EXPECT_FIELD(te_llama_options, variant, 8, 8);
  EXPECT_FIELD(te_llama_options, subfolder, 16, 8);
  EXPECT_FIELD(te_llama_options, params_dtype, 24, 4);
  EXPECT_FIELD(te_llama_options, path, 28, 4);
  EXPECT_FIELD(te_llama_options, allow_missing, 32, 4);
  EXPECT_FIELD(te_llama_options, reserved, 36, 4);
  EXPECT_FIELD(te_llama_options, optimizer, 40, 8);
  // Version 2:
  EXPECT_FIELD(te_llama_options, recipe, 48, 8);
  EXPECT_FIELD(te_llama_options, calibration_steps, 56, 8);
  // Version 3:
  EXPECT_FIELD(te_llama_options, resume, 64, 4);
  EXPECT_FIELD(te_llama_options, recompute_granularity, 68, 4);
  EXPECT_FIELD(te_llama_options, recompute_num_layers, 72, 8);
  EXPECT_EQ(sizeof(te_llama_options), size_t{80});
}

TEST(Abi, LayoutOf_te_llama_batch) {
  EXPECT_FIELD(te_llama_batch, struct_size, 0, 8);
  EXPECT_FIELD(te_llama_batch, batch_size, 8, 8);
  EXPECT_FIELD(te_llama_batch, sequence_length, 16, 8);
  EXPECT_FIELD(te_llama_batch, input_ids, 24, 8);
  EXPECT_FIELD(te_llama_batch, labels, 32, 8);
  EXPECT_FIELD(te_llama_batch, attention_mask, 40, 8);
  EXPECT_EQ(sizeof(te_llama_batch), size_t{48});
}

TEST(Abi, LayoutOf_te_llama_step_result) {
  EXPECT_FIELD(te_llama_step_result, struct_size, 0, 8);
  EXPECT_FIELD(te_llama_step_result, loss, 8, 8);
  EXPECT_FIELD(te_llama_step_result, grad_norm, 16, 8);
  EXPECT_FIELD(te_llama_step_result, token_count, 24, 8);
  EXPECT_EQ(sizeof(te_llama_step_result), size_t{32});
}

TEST(Abi, LayoutOf_te_llama_save_options) {
  EXPECT_FIELD(te_llama_save_options, struct_size, 0, 8);
  EXPECT_FIELD(te_llama_save_options, max_shard_size, 8, 8);
  EXPECT_FIELD(te_llama_save_options, save_dtype, 16, 4);
  EXPECT_FIELD(te_llama_save_options, reserved, 20, 4);
  // Version 3:
  EXPECT_FIELD(te_llama_save_options, save_training_state, 24, 4);
  EXPECT_FIELD(te_llama_save_options, reserved2, 28, 4);
  // Version 5:
  EXPECT_FIELD(te_llama_save_options, allow_nonfinite, 32, 4);
  EXPECT_FIELD(te_llama_save_options, reserved3, 36, 4);
  EXPECT_EQ(sizeof(te_llama_save_options), size_t{40});
}
