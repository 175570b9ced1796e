/* te: transformer layers with BF16 and FP8 training, and Llama models on top of them, behind a
 * stable C ABI.
 *
 * Rules that hold for every declaration here:
 *
 * - Every function returns a te_status (but for the few that cannot fail). 0 is success; status
 *   values are never reused. On failure te_last_error_message() names the argument, its value and
 *   what was expected, and no output has been written.
 * - Handles are opaque. *_create makes one and hands its ownership to the caller; *_destroy takes
 *   it back (NULL is fine). A handle of another type, or a NULL where a handle is needed, is
 *   TE_STATUS_INVALID_ARGUMENT, never a crash. A destroyed handle must not be used.
 * - Everything made from a context must be destroyed before the context.
 * - A context, and all that is made from it, is used by one thread at a time. Different contexts
 *   may be used by different threads at the same time. The error message is thread-local.
 * - Option structs begin with struct_size and are filled with defaults by their *_options_init or
 *   *_args_init. They grow only at the end: a program compiled against an older header runs with a
 *   newer library (the new fields keep their defaults), and a newer struct is accepted by an older
 *   library as long as the fields that it does not know are zero.
 * - A struct that has grown since version 1 has a second function, *_init_sized, which is told how
 *   large the caller's struct is; a macro of the old name calls it. The function of the old name
 *   goes on to fill version 1's fields alone: older programs have no memory for more. A program
 *   that looks functions up by name takes *_init_sized.
 * - Strings are UTF-8, NUL-terminated and copied; those handed out belong to the library and live
 *   as long as the comment says.
 * - Booleans are int32_t: 0 or 1; another value is refused. Reserved fields are 0.
 * - No exception, exit, print or signal leaves the library.
 *
 * This header compiles as C11 and as C++17.
 */
#ifndef TE_TE_H_
#define TE_TE_H_

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#error "te does not support Windows"
#endif
#if defined(__GNUC__)
#define TE_API __attribute__((visibility("default")))
#else
#define TE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Version, status ---- */

/* Grows by one whenever something is added; nothing is ever removed or changed in meaning.
 * 2: FP8 recipes. 3: the rest of their parameters, weights in FP8 alone, training state saved and
 * loaded. 4: allow_nondeterministic of a context. 5: padding_idx of an Embedding, allow_nonfinite
 * of a save. */
#define TE_ABI_VERSION 5

/* The TE_ABI_VERSION that the loaded library was built with. Cannot fail. Any thread. */
TE_API uint32_t te_abi_version(void);
/* "0.1.0". Static. Cannot fail. Any thread. */
TE_API const char* te_version_string(void);

typedef int32_t te_status;
#define TE_STATUS_OK 0
#define TE_STATUS_INVALID_ARGUMENT 1
#define TE_STATUS_OUT_OF_MEMORY 2
#define TE_STATUS_UNSUPPORTED 3
#define TE_STATUS_NOT_FOUND 4
#define TE_STATUS_IO_ERROR 5
#define TE_STATUS_CORRUPT_DATA 6
#define TE_STATUS_FAILED_PRECONDITION 7
#define TE_STATUS_INTERNAL 8

/* "INVALID_ARGUMENT"; "UNKNOWN" for a number that this library does not know. Static. Cannot fail.
 * Any thread. */
TE_API const char* te_status_name(te_status status);
/* Why this thread's last failing call failed; "" before the first failure. Lives until this
 * thread's next failing call. Cannot fail. */
TE_API const char* te_last_error_message(void);

/* ---- Types ---- */

typedef int32_t te_dtype;
#define TE_DTYPE_FLOAT32 0
#define TE_DTYPE_BFLOAT16 1
#define TE_DTYPE_FLOAT16 2
#define TE_DTYPE_FLOAT64 3
#define TE_DTYPE_INT32 4
#define TE_DTYPE_INT64 5
#define TE_DTYPE_UINT8 6
#define TE_DTYPE_FLOAT8_E4M3 7
#define TE_DTYPE_FLOAT8_E5M2 8

/* Most dimensions that a tensor has. */
#define TE_MAX_RANK 5

typedef struct te_context te_context;       /* a device, its memory, libraries and random numbers */
typedef struct te_tensor te_tensor;         /* a view of memory, owned or borrowed */
typedef struct te_fp8_recipe te_fp8_recipe; /* how the tensors of GEMMs are quantized */
typedef struct te_layer te_layer;           /* a layer and its parameters */
typedef struct te_saved te_saved;           /* what one forward pass left for its backward pass */
typedef struct te_optimizer te_optimizer;   /* AdamW over a layer's parameters */
typedef struct te_llama te_llama;           /* a Llama model with its optimizer */
typedef struct te_process_group
    te_process_group; /* a communicator; none can be made yet: pass NULL (a group of one) */

/* ---- Context ---- */

typedef struct te_context_options {
  size_t struct_size;
  const char* device;  /* "cpu", "cuda" or "cuda:N"; TE_UNSUPPORTED lists what this build has */
  int32_t num_threads; /* CPU threads; 0: as many as the process may run on */
  int32_t reserved;
  uint64_t seed; /* of initialization, dropout and stochastic rounding */
  void* stream;  /* the caller's cudaStream_t; NULL: the context's own. NULL on the CPU */
  te_process_group* data_group;
  te_process_group* tensor_group;
  te_process_group* context_group;
  te_process_group* pipeline_group;
  te_process_group* expert_group;
  /* Since TE_ABI_VERSION 4: */
  /* 0: the same program computes the same bits. 1: faster kernels that do not are allowed (CUDA:
   * attention's backward pass; the CPU has none, and this changes nothing there). Transformer
   * Engine's NVTE_ALLOW_NONDETERMINISTIC_ALGO */
  int32_t allow_nondeterministic;
  int32_t reserved2;
} te_context_options;

/* Version 1's fields: struct_size says so. */
TE_API te_status te_context_options_init(te_context_options* options);
/* struct_size: sizeof(te_context_options) as the caller knows it. */
TE_API te_status te_context_options_init_sized(te_context_options* options, size_t struct_size);
#define te_context_options_init(options) \
  te_context_options_init_sized((options), sizeof(te_context_options))

/* options NULL: the defaults. */
TE_API te_status te_context_create(const te_context_options* options, te_context** out);
TE_API void te_context_destroy(te_context* context);
/* Waits for all work of this context (the CPU has none left by then). */
TE_API te_status te_context_synchronize(te_context* context);
/* Bytes of device memory that the context holds now, the most it has held, and how often it asked
 * the device for memory (which stays the same over a step whose shapes were seen before). Each
 * output may be NULL. */
TE_API te_status te_context_memory(te_context* context, uint64_t* bytes, uint64_t* peak_bytes,
                                   int64_t* allocations);

/* ---- Tensors ---- */

/* A dense, row-major tensor of the context's device, contents undefined; the handle owns the
 * memory. */
TE_API te_status te_tensor_create(te_context* context, te_dtype dtype, int32_t rank,
                                  const int64_t* shape, te_tensor** out);
/* A view of the caller's memory on the context's device, which must outlive the handle. strides: in
 * elements, NULL = dense; at most one of a dimension's stride and extent may let elements overlap:
 * negative strides are refused. */
TE_API te_status te_tensor_borrow(te_context* context, te_dtype dtype, int32_t rank,
                                  const int64_t* shape, const int64_t* strides, void* data,
                                  te_tensor** out);
TE_API void te_tensor_destroy(te_tensor* tensor);
TE_API te_status te_tensor_dtype(const te_tensor* tensor, te_dtype* out);
TE_API te_status te_tensor_rank(const te_tensor* tensor, int32_t* out);
/* Writes rank values. capacity: how many fit; smaller than the rank is refused. */
TE_API te_status te_tensor_shape(const te_tensor* tensor, int32_t capacity, int64_t* out);
TE_API te_status te_tensor_strides(const te_tensor* tensor, int32_t capacity, int64_t* out);
/* Address of the first element, in device memory. Read only for a parameter's or gradient's view.
 */
TE_API te_status te_tensor_data(const te_tensor* tensor, void** out);
/* Copies all elements, row-major, between the tensor and host memory; bytes must be elements x
 * element size. Returns when done. Writing through a parameter's view is refused:
 * te_layer_set_parameter does it. */
TE_API te_status te_tensor_read(const te_tensor* tensor, void* host, size_t bytes);
TE_API te_status te_tensor_write(te_tensor* tensor, const void* host, size_t bytes);

/* DLPack (https://dmlc.github.io/dlpack): both structs are declared by dlpack.h, which te neither
 * needs nor installs. */
struct DLManagedTensor;
struct DLManagedTensorVersioned;
/* On success the new handle owns *managed and calls its deleter when destroyed; on failure the
 * caller still owns it. */
TE_API te_status te_tensor_from_dlpack(te_context* context, struct DLManagedTensor* managed,
                                       te_tensor** out);
TE_API te_status te_tensor_from_dlpack_versioned(te_context* context,
                                                 struct DLManagedTensorVersioned* managed,
                                                 te_tensor** out);
/* Exports a view; the tensor's memory stays alive until both the handle is destroyed and the
 * consumer has called the deleter. A parameter's view is exported read only: te_tensor_to_dlpack,
 * which cannot say so, refuses it. */
TE_API te_status te_tensor_to_dlpack(te_tensor* tensor, struct DLManagedTensor** out);
TE_API te_status te_tensor_to_dlpack_versioned(te_tensor* tensor,
                                               struct DLManagedTensorVersioned** out);

/* ---- Recipes ---- */

/* Kinds of recipe: Transformer Engine's classes. */
#define TE_FP8_RECIPE_NONE 0    /* every tensor in its own dtype: FP32 and BF16 training */
#define TE_FP8_RECIPE_DELAYED 1 /* DelayedScaling: a scale comes from the amaxes of past steps */
#define TE_FP8_RECIPE_CURRENT 2 /* Float8CurrentScaling: from the tensor's own amax */
#define TE_FP8_RECIPE_BLOCK 3   /* Float8BlockScaling: 1x128 elements, 128x128 of weights */
#define TE_FP8_RECIPE_MXFP8 4   /* MXFP8BlockScaling: a power of two for 32 elements */
#define TE_FP8_RECIPE_NVFP4 5   /* NVFP4BlockScaling: E2M1, an E4M3 scale for 16 elements */

#define TE_FP8_FORMAT_HYBRID 0 /* E4M3 forward, E5M2 for gradients */
#define TE_FP8_FORMAT_E4M3 1

#define TE_AMAX_COMPUTE_ALGO_MAX 0 /* of the history */
#define TE_AMAX_COMPUTE_ALGO_MOST_RECENT 1

/* What dgrad and wgrad multiply where the forward pass multiplied quantized tensors. With either
 * override the gradient of the output is not quantized. */
#define TE_BACKWARD_OVERRIDE_NONE 0           /* the quantized tensors */
#define TE_BACKWARD_OVERRIDE_HIGH_PRECISION 1 /* input and weight before they were quantized */
#define TE_BACKWARD_OVERRIDE_DEQUANTIZED 2    /* the values of the quantized input and weight */

/* Tensors of the forward pass that an option of NVFP4 is for. */
#define TE_NVFP4_NONE 0
#define TE_NVFP4_WEIGHTS 1
#define TE_NVFP4_ACTIVATIONS 2
#define TE_NVFP4_ALL 3

/* The error that nvfp4_4over6 chooses by: the sum of magnitudes, or of squares. */
#define TE_NVFP4_4OVER6_ERR_MODE_MAE 1
#define TE_NVFP4_4OVER6_ERR_MODE_MSE 2

/* What the _init writes into an integer parameter: the kind's own default, whatever kind is chosen
 * afterwards. (No parameter has this value.) */
#define TE_FP8_RECIPE_DEFAULT INT32_MIN

/* Parameters carry Transformer Engine's names. The kinds that have one stand in front, with its
 * default there; one that is set although the kind does not have it is refused by name. */
typedef struct te_fp8_recipe_options {
  size_t struct_size;
  int32_t kind;
  int32_t reserved;
  /* Since TE_ABI_VERSION 2: */
  int32_t margin;                 /* DELAYED: 0; -100 to 100. MXFP8: 0, which is all it knows */
  int32_t fp8_format;             /* DELAYED, CURRENT: hybrid. BLOCK, MXFP8: E4M3 */
  int32_t amax_history_len;       /* DELAYED: 1024 */
  int32_t amax_compute_algo;      /* DELAYED: max */
  int32_t reduce_amax;            /* DELAYED: 1, over the data- and tensor-parallel groups */
  int32_t use_power_2_scales;     /* CURRENT: 0. BLOCK: 1 */
  float amax_epsilon;             /* CURRENT, BLOCK: 0. _init writes -1: the kind's default */
  int32_t enable_2d_quantization; /* MXFP8: 0; 1: 32x32 elements of weights */
  int32_t disable_rht;            /* NVFP4: 0; 1: no random Hadamard transform */
  int32_t disable_stochastic_rounding; /* NVFP4: 0; 1: gradients are rounded to nearest */
  int32_t disable_2d_quantization;     /* NVFP4: 0; 1: no 16x16 elements of weights */
  int32_t reserved2;
  /* Since TE_ABI_VERSION 3: */
  int32_t backward_override; /* none; DELAYED: none is all that it knows */
  /* MMParams: 0 adds in the tensor cores' own registers (CUDA). CURRENT: 0, 1, 1. BLOCK: 1, which
   * is all it knows */
  int32_t fp8_gemm_fprop_use_split_accumulator;
  int32_t fp8_gemm_dgrad_use_split_accumulator;
  int32_t fp8_gemm_wgrad_use_split_accumulator;
  int32_t x_block_scaling_dim;    /* BLOCK: 1; 2: 128x128 elements. Of the three one at most is 2 */
  int32_t w_block_scaling_dim;    /* BLOCK: 2 */
  int32_t grad_block_scaling_dim; /* BLOCK: 1 */
  int32_t row_scaled_activation;  /* NVFP4: 0; 1: a float32 for each row of inputs instead of one a
                                     tensor; needs disable_rht 1 */
  int32_t nvfp4_4over6;           /* NVFP4: NONE; whose blocks take the better of two scales.
                                     ACTIVATIONS and ALL need disable_rht 1 */
  int32_t nvfp4_4over6_e4m3_use_256; /* NVFP4: ALL; which of those leave room above block scales */
  int32_t nvfp4_4over6_err_mode;     /* NVFP4: MAE */
  int32_t fp8_dpa; /* DELAYED: 0; 1: training computes attention's products in FP8, too. No window,
                      dropout, bottom-right or arbitrary mask; CUDA: head_dim 128 */
} te_fp8_recipe_options;

/* Version 1's fields: struct_size says so. */
TE_API te_status te_fp8_recipe_options_init(te_fp8_recipe_options* options);
/* struct_size: sizeof(te_fp8_recipe_options) as the caller knows it. */
TE_API te_status te_fp8_recipe_options_init_sized(te_fp8_recipe_options* options,
                                                  size_t struct_size);
#define te_fp8_recipe_options_init(options) \
  te_fp8_recipe_options_init_sized((options), sizeof(te_fp8_recipe_options))

/* options NULL: kind NONE. On which GPUs a kind's GEMMs run is found out when they do:
 * TE_STATUS_UNSUPPORTED names the compute capability that they need. */
TE_API te_status te_fp8_recipe_create(te_context* context, const te_fp8_recipe_options* options,
                                      te_fp8_recipe** out);
/* Modules whose full name matches `pattern` go by training_recipe, or in a scope without training
 * by evaluation_recipe; NULL: by none, in their own dtype. The first rule that matches wins; no
 * rule: `recipe` itself. pattern: a glob over names such as "layer.layernorm_mlp.fc2" (that is
 * te_layer_options.name, then the module's place in the layer), "model.layers.0.*" or "lm_head";
 * '*' matches dots, too. Both recipes are taken as they are now, with the rules that they have, and
 * may be destroyed or changed afterwards. Scopes that have begun do not see the new rule. */
TE_API te_status te_fp8_recipe_add_rule(te_fp8_recipe* recipe, const char* pattern,
                                        const te_fp8_recipe* training_recipe,
                                        const te_fp8_recipe* evaluation_recipe);
/* At any time: scopes, te_saved and te_llama that use the recipe keep what they need of it. */
TE_API void te_fp8_recipe_destroy(te_fp8_recipe* recipe);

typedef struct te_quantization_options {
  size_t struct_size;
  int32_t training;    /* 1; 0: evaluation, which leaves no trace in scales and histories, and under
                          an FP8 recipe has no backward pass (te_forward's saved is NULL) */
  int32_t calibrating; /* 0; 1: layers compute in their own dtype, forward and backward, while
                          the amaxes enter the histories of delayed scaling: scales are good
                          before they are used. Needs training and an FP8 recipe (of which
                          those without a history have nothing to collect) */
  int32_t is_first_microbatch; /* 1: quantized copies of the weights are made anew; 0: those of the
                                  step's first micro-batch serve, unless a weight has changed */
  int32_t reserved;
} te_quantization_options;

TE_API te_status te_quantization_options_init(te_quantization_options* options);
/* Layers of the context run under `recipe` until the matching _end (Transformer Engine's autocast):
 * what te_forward runs inside, and the backward passes of that, which belong outside. Scopes nest,
 * the innermost one counts. Without a scope layers run in their own dtype.
 * Delayed scaling: the end of the outermost scope moves the scales of forward tensors, if it trains
 * under an FP8 recipe; those of gradients move when the first module that ran in it has ended its
 * backward pass. */
TE_API te_status te_quantization_begin(te_context* context, te_fp8_recipe* recipe,
                                       const te_quantization_options* options);
TE_API te_status te_quantization_end(te_context* context);

/* Since TE_ABI_VERSION 3: weights that exist in FP8 alone (Transformer Engine's
 * quantized_model_init), half of bfloat16's memory. The weights of GEMMs of layers and Llamas that
 * are made between _begin and the matching _end have no copy in another dtype, where `recipe`
 * quantizes them for training; lm_head, embedding, norms and biases are as ever. The optimizer
 * updates them in place: without master weights, and better with TE_ROUNDING_STOCHASTIC, because
 * most updates are less than half a step of E4M3. Scopes of quantization that such layers run in
 * take the same recipe; outside of any they compute with the values of the codes. Recipes that give
 * a weight E4M3 codes with one scale: TE_FP8_RECIPE_DELAYED, and TE_FP8_RECIPE_CURRENT without
 * use_power_2_scales and amax_epsilon; another one is TE_STATUS_UNSUPPORTED when the layer is made.
 * Calls nest, the innermost recipe counts. */
TE_API te_status te_fp8_model_init_begin(te_context* context, te_fp8_recipe* recipe);
TE_API te_status te_fp8_model_init_end(te_context* context);

/* ---- Layers ---- */

#define TE_LAYER_TRANSFORMER_LAYER 0
#define TE_LAYER_MULTIHEAD_ATTENTION 1
#define TE_LAYER_DOT_PRODUCT_ATTENTION 2
#define TE_LAYER_LAYERNORM_MLP 3
#define TE_LAYER_LAYERNORM_LINEAR 4
#define TE_LAYER_LINEAR 5
#define TE_LAYER_RMSNORM 6
#define TE_LAYER_LAYERNORM 7
#define TE_LAYER_EMBEDDING 8
#define TE_LAYER_CROSS_ENTROPY 9

#define TE_NORMALIZATION_RMSNORM 0
#define TE_NORMALIZATION_LAYERNORM 1

#define TE_ACTIVATION_GELU 0
#define TE_ACTIVATION_GEGLU 1
#define TE_ACTIVATION_GLU 2
#define TE_ACTIVATION_QGELU 3
#define TE_ACTIVATION_QGEGLU 4
#define TE_ACTIVATION_RELU 5
#define TE_ACTIVATION_REGLU 6
#define TE_ACTIVATION_SRELU 7
#define TE_ACTIVATION_SREGLU 8
#define TE_ACTIVATION_SILU 9
#define TE_ACTIVATION_SWIGLU 10
#define TE_ACTIVATION_CLAMPED_SWIGLU 11

/* [batch, sequence, heads, head_dim]; hidden states [batch, sequence, hidden] */
#define TE_FORMAT_BSHD 0
#define TE_FORMAT_SBHD 1

#define TE_MASK_NO_MASK 0
#define TE_MASK_PADDING 1
#define TE_MASK_CAUSAL 2
#define TE_MASK_PADDING_CAUSAL 3
#define TE_MASK_CAUSAL_BOTTOM_RIGHT 4
#define TE_MASK_PADDING_CAUSAL_BOTTOM_RIGHT 5
#define TE_MASK_ARBITRARY 6

/* Options carry Transformer Engine's names and defaults. Each kind reads the fields of its group; a
 * field of another group that is not at its default is refused by name. */
typedef struct te_layer_options {
  size_t struct_size;
  int32_t kind;
  te_dtype params_dtype; /* TE_DTYPE_FLOAT32 (default) or TE_DTYPE_BFLOAT16: of parameters,
                            activations and gradients */
  const char* name;      /* used in messages; NULL: the kind's name */
  /* TransformerLayer, MultiheadAttention, LayerNormMLP, norms: */
  int64_t hidden_size;
  /* TransformerLayer, LayerNormMLP: */
  int64_t ffn_hidden_size;
  /* TransformerLayer, MultiheadAttention, DotProductAttention: */
  int64_t num_attention_heads;
  int64_t num_gqa_groups; /* 0: num_attention_heads */
  int64_t kv_channels;    /* head_dim; 0: hidden_size / num_attention_heads */
  /* Linear, LayerNormLinear: */
  int64_t in_features;
  int64_t out_features;
  /* Embedding: */
  int64_t vocab_size;
  /* all with a norm: */
  double layernorm_epsilon; /* 1e-5 */
  int32_t normalization;    /* TE_NORMALIZATION_LAYERNORM, as in Transformer Engine */
  int32_t zero_centered_gamma;
  /* all with a GEMM: */
  int32_t bias; /* 1, as in Transformer Engine */
  /* TransformerLayer, LayerNormMLP: */
  int32_t activation; /* TE_ACTIVATION_GELU, as in Transformer Engine */
  /* TransformerLayer, MultiheadAttention, DotProductAttention: */
  int32_t self_attn_mask_type; /* TE_MASK_CAUSAL */
  int32_t attn_input_format;   /* TE_FORMAT_SBHD, as in Transformer Engine */
  int64_t window_size_left;    /* -1: infinite */
  int64_t window_size_right;   /* -1: infinite */
  double attention_dropout;    /* 0.1, as in Transformer Engine */
  double softmax_scale;        /* DotProductAttention; 0: 1 / sqrt(head_dim) */
  int32_t fuse_qkv_params; /* 0: parameters query_weight, key_weight, value_weight; 1: one weight */
  int32_t
      qkv_weight_interleaved; /* 1, as in Transformer Engine: [group, heads / group + 2, head_dim]
                                 rows; 0: all of Q, K, V in turn. fuse_qkv_params only */
  int32_t input_layernorm;    /* MultiheadAttention: 0; TransformerLayer always has it */
  int32_t reserved;
  /* TransformerLayer: */
  double hidden_dropout;  /* 0.1, as in Transformer Engine */
  double init_method_std; /* 0.023: weights are normal(0, std) */
  /* CrossEntropy: */
  double label_smoothing; /* 0 */
  /* Since TE_ABI_VERSION 5: */
  /* Embedding: */
  int64_t padding_idx; /* -1: none; torch.nn.Embedding's: this row is 0 after initialization and
                          gets no gradient */
} te_layer_options;

/* Version 1's fields: struct_size says so. */
TE_API te_status te_layer_options_init(te_layer_options* options);
/* struct_size: sizeof(te_layer_options) as the caller knows it. */
TE_API te_status te_layer_options_init_sized(te_layer_options* options, size_t struct_size);
#define te_layer_options_init(options) \
  te_layer_options_init_sized((options), sizeof(te_layer_options))

TE_API te_status te_layer_create(te_context* context, const te_layer_options* options,
                                 te_layer** out);
TE_API void te_layer_destroy(te_layer* layer);
/* The module tree, in the style of PyTorch's repr. Lives until the layer is destroyed or asked
 * again. */
TE_API te_status te_layer_describe(te_layer* layer, const char** out);

/* Parameters, in a fixed order, under Transformer Engine's state-dict names. */
TE_API te_status te_layer_parameter_count(te_layer* layer, int64_t* out);
/* The name lives as long as the layer. */
TE_API te_status te_layer_parameter_name(te_layer* layer, int64_t index, const char** out);
/* TE_STATUS_NOT_FOUND lists the names that there are. */
TE_API te_status te_layer_parameter_index(te_layer* layer, const char* name, int64_t* out);
/* Read-only views; destroy them before the layer. A gradient exists once te_backward has run (else
 * TE_STATUS_FAILED_PRECONDITION). Of a weight that exists in FP8 alone the view is of a copy: the
 * values of its codes at this moment, in params_dtype. */
TE_API te_status te_layer_parameter(te_layer* layer, int64_t index, te_tensor** out);
TE_API te_status te_layer_gradient(te_layer* layer, int64_t index, te_tensor** out);
/* Copies `value` (same shape; float32, float16, bfloat16 or float64, converted) into the parameter.
 */
TE_API te_status te_layer_set_parameter(te_layer* layer, int64_t index, const te_tensor* value);
/* 0 freezes it: no gradient is computed, the optimizer leaves it. Applies to the whole GEMM operand
 * (query, key and value of one layer). */
TE_API te_status te_layer_set_requires_grad(te_layer* layer, int64_t index, int32_t requires_grad);

typedef struct te_forward_args {
  size_t struct_size;
  const te_tensor* input;  /* hidden states; query [b, s, n, d]; token ids (int32) of Embedding;
                              logits [t, v] of CrossEntropy */
  te_tensor* output;       /* written; the shape is checked. CrossEntropy: loss, float32 [t] */
  const te_tensor* key;    /* DotProductAttention */
  const te_tensor* value;  /* DotProductAttention */
  const te_tensor* labels; /* CrossEntropy: int32 [t]; -100 is not counted */
  /* Masks: uint8, nonzero = masked out (Transformer Engine's convention). */
  const te_tensor* padding_mask;   /* [batch, keys]: mask types with padding; NULL: no padding */
  const te_tensor* arbitrary_mask; /* [batch or 1, heads or 1, queries, keys]: TE_MASK_ARBITRARY */
  /* Rotary position embedding, optional: float32 [positions, rotary_dim / 2]. */
  const te_tensor* rotary_cos;
  const te_tensor* rotary_sin;
  const te_tensor* positions; /* int32 [batch, sequence], optional: else start_position + s */
  int64_t start_position;
  int32_t rotary_interleaved;
  int32_t reserved;
} te_forward_args;

TE_API te_status te_forward_args_init(te_forward_args* args);
/* saved NULL: inference, without dropout. Else training: *saved receives what the backward pass
 * needs, and the caller owns it; several may be alive at once (micro-batches in flight). The input
 * tensors' memory must stay unchanged until the backward pass is done. */
TE_API te_status te_forward(te_layer* layer, const te_forward_args* args, te_saved** saved);
TE_API void te_saved_destroy(te_saved* saved);

typedef struct te_backward_args {
  size_t struct_size;
  const te_tensor* doutput; /* of the output's shape; CrossEntropy: NULL (the gradient of the sum of
                               the losses) */
  te_tensor* dinput;        /* written; NULL: not wanted */
  te_tensor* dkey;          /* DotProductAttention */
  te_tensor* dvalue;        /* DotProductAttention */
  int32_t
      accumulate_gradients; /* 1: add to the parameters' gradients instead of overwriting them */
  int32_t delay_weight_gradients; /* 1: leave the GEMMs' weight gradients to te_backward_weight */
  /* Called, when not NULL, as soon as a parameter's gradient of this pass is complete, with the
   * parameter's index; must not call te. */
  void (*gradient_ready)(void* user_data, int64_t parameter_index);
  void* user_data;
} te_backward_args;

TE_API te_status te_backward_args_init(te_backward_args* args);
/* Once for each saved; afterwards it can only be destroyed (or, with delay_weight_gradients, given
 * to te_backward_weight). */
TE_API te_status te_backward(te_layer* layer, te_saved* saved, const te_backward_args* args);
/* The delayed half: same args as the te_backward before it; doutput must not have changed since. */
TE_API te_status te_backward_weight(te_layer* layer, te_saved* saved, const te_backward_args* args);

/* ---- Optimizer ---- */

#define TE_ROUNDING_NEAREST 0
#define TE_ROUNDING_STOCHASTIC 1

typedef struct te_optimizer_options {
  size_t struct_size;
  double beta1;           /* 0.9 */
  double beta2;           /* 0.999 */
  double epsilon;         /* 1e-8 */
  double weight_decay;    /* 0.01 */
  te_dtype moments_dtype; /* TE_DTYPE_FLOAT32 or TE_DTYPE_BFLOAT16 */
  int32_t master_weights; /* 1: float32 copies of bfloat16 parameters */
  int32_t rounding;       /* of bfloat16 stores */
  int32_t reserved;
} te_optimizer_options;

TE_API te_status te_optimizer_options_init(te_optimizer_options* options);
/* AdamW (torch.optim.AdamW's arithmetic) over the layer's trainable parameters. Destroy it before
 * the layer. */
TE_API te_status te_optimizer_create(te_layer* layer, const te_optimizer_options* options,
                                     te_optimizer** out);
TE_API void te_optimizer_destroy(te_optimizer* optimizer);

typedef struct te_optimizer_step_args {
  size_t struct_size;
  double learning_rate;
  double max_grad_norm;    /* global-norm clipping; 0: off */
  double gradient_divisor; /* gradients are sums: what to divide them by (tokens, samples). 1 */
} te_optimizer_step_args;

TE_API te_status te_optimizer_step_args_init(te_optimizer_step_args* args);
/* grad_norm: 2-norm of the divided gradients before clipping; may be NULL. */
TE_API te_status te_optimizer_step(te_optimizer* optimizer, const te_optimizer_step_args* args,
                                   double* grad_norm);

/* ---- Training state ---- */

/* What a training loop needs beside its parameters to go on bit for bit, in safetensors files that
 * docs/state.md describes. The parameters are the caller's to keep (te_tensor_read,
 * te_layer_set_parameter; with bfloat16 parameters and master weights, both; the codes of weights
 * in FP8 alone are in the optimizer's file), as are learning rate, data and the other options. A
 * te_llama does all of it at once: save_training_state and resume.
 *
 * The bits are the same if the program that goes on makes context, layers and optimizers as the one
 * that saved did: same seed, same order, same thread count, same kind of device.
 *
 * *_save replaces the file as a whole, or fails and leaves the old one as it was. *_load reads and
 * checks everything first: on TE_STATUS_NOT_FOUND, TE_STATUS_CORRUPT_DATA (no such file, wrong
 * format, values that no training leaves) and TE_STATUS_INVALID_ARGUMENT (the state of something
 * else: the message names the tensor and what was expected) nothing has changed. */

/* Scales and amax histories of delayed scaling: of all modules of the context that have run under
 * such a recipe (TE_STATUS_FAILED_PRECONDITION: none has, or two modules share a name: see
 * te_layer_options.name). Between steps, outside of scopes. */
TE_API te_status te_fp8_state_save(te_context* context, const char* path);
/* After the layers have been made, under the names that they had: another module in the file is
 * TE_STATUS_INVALID_ARGUMENT. Modules that have not run yet take their state when they do (a recipe
 * with another format or history length is then TE_STATUS_FAILED_PRECONDITION); no calibration is
 * needed. Modules that the file lacks keep what they have. */
TE_API te_status te_fp8_state_load(te_context* context, const char* path);

/* Moments, master weights, the count of updates, and the context's random offset, which dropout and
 * stochastic rounding of everything in the context go on from (of several optimizers' files, the
 * last one loaded sets it). */
TE_API te_status te_optimizer_state_save(te_optimizer* optimizer, const char* path);
/* Into an optimizer of the same layer: the same trainable parameters, the same moments_dtype and
 * master_weights, and in a context of the same seed. */
TE_API te_status te_optimizer_state_load(te_optimizer* optimizer, const char* path);

/* ---- Llama ---- */

#define TE_LLAMA_PATH_TE 0 /* fused layers */
#define TE_LLAMA_PATH_HF 1 /* Hugging Face's decomposition, operation by operation */

/* What a pass keeps of a decoder layer for its backward pass (Megatron's recompute_granularity):
 * all that it reads, or the layer's input, to run the layer again: less memory, more time, the same
 * numbers bit for bit. */
#define TE_RECOMPUTE_NONE 0
#define TE_RECOMPUTE_FULL 1

typedef struct te_llama_options {
  size_t struct_size;
  const char* variant;   /* as Hugging Face's from_pretrained(variant=): NULL: none */
  const char* subfolder; /* NULL: none */
  te_dtype params_dtype; /* TE_DTYPE_BFLOAT16 (default) or TE_DTYPE_FLOAT32 */
  int32_t path;          /* TE_LLAMA_PATH_TE */
  int32_t allow_missing; /* 1: tensors that the checkpoint lacks are initialized at random */
  int32_t reserved;
  const te_optimizer_options*
      optimizer; /* of te_llama_step; NULL: the defaults, but bfloat16 moments and stochastic
                    rounding for bfloat16 parameters */
  /* Since TE_ABI_VERSION 2: */
  te_fp8_recipe* recipe; /* of te_llama_step's GEMMs, lm_head included (a rule keeps it out: see
                            te_fp8_recipe_add_rule); NULL: none. Not with TE_LLAMA_PATH_HF, which
                            has no quantized operations. Taken as it is now; te_llama_loss does not
                            go by it, but like a layer by the scope that it is called in */
  int64_t
      calibration_steps; /* 1: of the first te_llama_steps, as te_quantization_options.calibrating;
                            0: none. Nothing to a recipe without delayed scaling */
  /* Since TE_ABI_VERSION 3: */
  int32_t resume; /* 0; 1: go on, bit for bit, where the te_llama stood that saved the directory
                     with save_training_state (or te finetune --save-optimizer-state): weights,
                     optimizer, random numbers, scales; of calibration_steps, those that were left.
                     Not with variant. TE_STATUS_NOT_FOUND: there is no such state */
  int32_t recompute_granularity; /* TE_RECOMPUTE_NONE; of te_llama_step */
  int64_t recompute_num_layers;  /* TE_RECOMPUTE_FULL: the first N decoder layers; 0: all */
} te_llama_options;

/* Version 1's fields: struct_size says so. */
TE_API te_status te_llama_options_init(te_llama_options* options);
/* struct_size: sizeof(te_llama_options) as the caller knows it. */
TE_API te_status te_llama_options_init_sized(te_llama_options* options, size_t struct_size);
#define te_llama_options_init(options) \
  te_llama_options_init_sized((options), sizeof(te_llama_options))

/* Loads a Hugging Face directory (config.json, safetensors or .bin, single or sharded). On a GPU
   the algorithms of matrix products that are known for its card are taken and not searched again:
   of te_tuned_choices.txt in the directory, else of the user's cache ($XDG_CACHE_HOME/te, else
   $HOME/.cache/te), else those that ship with te. te_llama_step adds to the cache what it had to
   search. Environment: TE_CHOICES_CACHE=0 neither reads nor writes a cache,
   TE_CHOICES_CACHE=/FOLDER uses that folder; one that cannot be read or written is as good as none.
 */
TE_API te_status te_llama_load(te_context* context, const char* directory,
                               const te_llama_options* options, te_llama** out);
TE_API void te_llama_destroy(te_llama* llama);

typedef struct te_llama_batch {
  size_t struct_size;
  int64_t batch_size;
  int64_t sequence_length;
  const int32_t* input_ids; /* host, [batch_size, sequence_length] */
  const int32_t* labels;    /* host, same shape, not shifted; -100 is not counted. NULL: input_ids
                               where attention_mask is 1 */
  const int32_t* attention_mask; /* host, same shape, Hugging Face's convention (1 = token, 0 =
                                    padding). NULL: all 1 */
} te_llama_batch;

TE_API te_status te_llama_batch_init(te_llama_batch* batch);
/* Mean loss over the counted tokens, without training. */
TE_API te_status te_llama_loss(te_llama* llama, const te_llama_batch* batch, double* loss);

typedef struct te_llama_step_result {
  size_t struct_size;
  double loss;      /* mean over the counted tokens of all micro-batches, before the update */
  double grad_norm; /* 2-norm of the mean loss's gradient, before clipping */
  int64_t token_count;
} te_llama_step_result;

TE_API te_status te_llama_step_result_init(te_llama_step_result* result);
/* One optimizer update over `batch_count` micro-batches, each of which runs in a scope of its own
 * under te_llama_options.recipe, if there is one. max_grad_norm 0: no clipping. With a result the
 * call waits for it; result may be NULL: then the call ends when the work is enqueued, and no norm
 * is computed but for clipping. The batches are the caller's again in either case.
 * Ids, labels, masks and numbers that are wrong are refused before anything runs; what fails later
 * (no memory, a shape that a GPU's FP8 products do not take) has updated nothing. On a GPU a
 * shape's third step and those after it are launched as one piece of recorded work, if no memory of
 * the context was allocated in between and no scope of the caller's is open: the same numbers, bit
 * for bit, sooner. */
TE_API te_status te_llama_step(te_llama* llama, const te_llama_batch* batches, int64_t batch_count,
                               double learning_rate, double max_grad_norm,
                               te_llama_step_result* result);

typedef struct te_llama_save_options {
  size_t struct_size;
  uint64_t max_shard_size; /* bytes; 5,000,000,000 */
  te_dtype save_dtype;     /* -1: the loaded checkpoint's */
  int32_t reserved;
  /* Since TE_ABI_VERSION 3: */
  int32_t save_training_state; /* 0; 1: also what te_llama_options.resume needs, beside the weights
                                  and replaced together with them. At least one te_llama_step must
                                  have been made. (0 removes what an older save left: it would not
                                  be these weights' state) */
  int32_t reserved2;
  /* Since TE_ABI_VERSION 5: */
  int32_t allow_nonfinite; /* 0: when a weight (or a moment of save_training_state) would be saved
                              as NaN or infinity, also because save_dtype cannot hold it, the call
                              is TE_STATUS_FAILED_PRECONDITION, the message names tensors and
                              counts, and `directory` stays as it was; 1: it is saved */
  int32_t reserved3;
} te_llama_save_options;

/* Version 1's fields: struct_size says so. */
TE_API te_status te_llama_save_options_init(te_llama_save_options* options);
/* struct_size: sizeof(te_llama_save_options) as the caller knows it. */
TE_API te_status te_llama_save_options_init_sized(te_llama_save_options* options,
                                                  size_t struct_size);
#define te_llama_save_options_init(options) \
  te_llama_save_options_init_sized((options), sizeof(te_llama_save_options))

/* Writes a Hugging Face directory: the old one or the new one is there, never half of one.
 * `directory` may be the one that was loaded. */
TE_API te_status te_llama_save(te_llama* llama, const char* directory,
                               const te_llama_save_options* options);

#ifdef __cplusplus
}
#endif

#endif /* TE_TE_H_ */
