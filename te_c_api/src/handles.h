// What stands behind the opaque handles. Each begins with a tag that says its type: a wrong handle
// is an error, not a crash.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/llama/pretrained.h"
#include "models/llama/training_step.h"
#include "te/te.h"
#include "te_core/context.h"
#include "te_core/layers/layer.h"
#include "te_core/optimizer/adamw_optimizer.h"
#include "te_core/quantization/module_recipes.h"
#include "te_kernels/base/status.h"

namespace te::c_api {

enum class Tag : uint64_t {
  kContext = 0x7465636f6e746578,  // "tecontex": any value works that garbage is unlikely to hold
  kTensor = 0x746574656e736f72,
  kRecipe = 0x7465726563697065,
  kLayer = 0x74656c6179657200,
  kSaved = 0x7465736176656400,
  kOptimizer = 0x74656f7074696d69,
  kLlama = 0x74656c6c616d6100,
  kDestroyed = 0,
};

const char* Name(Tag tag);

// First base of every handle.
struct Handle {
  explicit Handle(Tag t) : tag(t) {}
  // volatile: the store in the destructor must happen, so that a stale handle is (most likely)
  // noticed.
  ~Handle() { tag = Tag::kDestroyed; }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  volatile Tag tag;
};

// Checks that `handle` is a live handle of the wanted type.
template <typename T>
Status Check(const T* handle, const char* argument) {
  if (handle == nullptr)
    return InvalidArgument("{} is NULL; expected a {}", argument, Name(T::kTag));
  if (handle->tag != T::kTag) {
    return InvalidArgument("{} is no {}: it is another kind of handle, or a destroyed one",
                           argument, Name(T::kTag));
  }
  return OkStatus();
}

template <typename T>
Status CheckNotNull(const T* pointer, const char* argument) {
  if (pointer == nullptr) return InvalidArgument("{} is NULL; expected an address", argument);
  return OkStatus();
}

// The C ABI's int32_t booleans.
inline Status CheckBool(int32_t value, const char* argument) {
  if (value == 0 || value == 1) return OkStatus();
  return InvalidArgument("{} is {}; expected 0 or 1", argument, value);
}

inline Status CheckReserved(int32_t value, const char* argument) {
  if (value == 0) return OkStatus();
  return InvalidArgument("{} is {}; this field is reserved: expected 0", argument, value);
}

StatusOr<DType> ToDType(te_dtype dtype, const char* argument);

}  // namespace te::c_api

namespace te::c_api {

// A context's running quantization scopes, the innermost one last. A recipe is shared with all who
// may still read it: scopes, saved forward passes, models.
struct QuantizationScope {
  std::shared_ptr<const Recipe> recipe;  // null: no quantization inside
  bool training = true;
};
using QuantizationScopes = std::vector<QuantizationScope>;

}  // namespace te::c_api

struct te_context : te::c_api::Handle {
  static constexpr te::c_api::Tag kTag = te::c_api::Tag::kContext;
  explicit te_context(std::unique_ptr<te::Context> c) : Handle(kTag), core(std::move(c)) {}
  std::unique_ptr<te::Context> core;
  std::shared_ptr<te::c_api::QuantizationScopes> scopes =
      std::make_shared<te::c_api::QuantizationScopes>();
  // te_fp8_model_init_begin's, the innermost one last. Before it goes the recipe that it reads.
  struct ModelInit {
    std::shared_ptr<const te::Recipe> recipe;
    std::unique_ptr<te::QuantizedInit> scope;
  };
  std::vector<ModelInit> model_inits;
};

struct te_tensor : te::c_api::Handle {
  static constexpr te::c_api::Tag kTag = te::c_api::Tag::kTensor;
  te_tensor(te::Context* c, te::TensorView v) : Handle(kTag), context(c), view(v) {}
  te::Context* context;
  te::TensorView view;
  bool read_only = false;
  std::shared_ptr<void>
      memory;  // keeps owned or imported memory alive; null when the caller owns it
};

struct te_fp8_recipe : te::c_api::Handle {
  static constexpr te::c_api::Tag kTag = te::c_api::Tag::kRecipe;
  te_fp8_recipe(te::Context* c, std::shared_ptr<const te::Recipe> r)
      : Handle(kTag), context(c), otherwise(r), core(std::move(r)) {}
  te::Context* context;
  // Null: every tensor in its own dtype, as far as no rule says otherwise.
  std::shared_ptr<const te::Recipe> otherwise;
  std::vector<te::ModuleRule> rules;
  std::shared_ptr<const te::Recipe> core;  // both together
};

namespace te::c_api {

// A layer with its pool of saved activations. Shared by the handles that need it alive: the layer's
// own, parameters' views, saved activations, the optimizer. So a handle destroyed in the wrong
// order is no use after free.
struct LayerBox {
  LayerBox(Context* c, std::shared_ptr<const QuantizationScopes> s, std::unique_ptr<Layer> l)
      : context(c),
        scopes(std::move(s)),
        layer(std::move(l)),
        pool(c->memory()),
        parameters(layer->NamedParameters()) {}

  Context* context;
  std::shared_ptr<const QuantizationScopes> scopes;  // the context's
  std::unique_ptr<Layer> layer;
  SavedPool pool;
  std::vector<NamedParameter> parameters;
};

}  // namespace te::c_api

struct te_layer : te::c_api::Handle {
  static constexpr te::c_api::Tag kTag = te::c_api::Tag::kLayer;
  explicit te_layer(std::shared_ptr<te::c_api::LayerBox> b) : Handle(kTag), box(std::move(b)) {}
  std::shared_ptr<te::c_api::LayerBox> box;
  std::string description;  // te_layer_describe's
};

struct te_saved : te::c_api::Handle {
  static constexpr te::c_api::Tag kTag = te::c_api::Tag::kSaved;
  te_saved(std::shared_ptr<te::c_api::LayerBox> b, te::SavedPool::Handle s)
      : Handle(kTag), box(std::move(b)), slot(std::move(s)) {
    if (!box->scopes->empty()) recipe = box->scopes->back().recipe;
  }

  enum class Stage { kForwardDone, kInputDone, kDone };
  std::shared_ptr<te::c_api::LayerBox>
      box;  // before slot: the slot returns to the pool that the box owns
  std::shared_ptr<const te::Recipe> recipe;  // the backward pass reads it
  te::SavedPool::Handle slot;
  Stage stage = Stage::kForwardDone;
};

struct te_optimizer : te::c_api::Handle {
  static constexpr te::c_api::Tag kTag = te::c_api::Tag::kOptimizer;
  te_optimizer(std::shared_ptr<te::c_api::LayerBox> b, std::unique_ptr<te::AdamWOptimizer> o)
      : Handle(kTag), box(std::move(b)), core(std::move(o)) {}
  std::shared_ptr<te::c_api::LayerBox> box;
  std::unique_ptr<te::AdamWOptimizer> core;
};

struct te_llama : te::c_api::Handle {
  static constexpr te::c_api::Tag kTag = te::c_api::Tag::kLlama;
  explicit te_llama(te::PretrainedLlama l) : Handle(kTag), core(std::move(l)) {}
  te::PretrainedLlama core;
  te::AdamWOptions optimizer_options;
  std::shared_ptr<const te::Recipe> recipe;  // null: none
  int64_t calibration_steps = 0;             // that were left when the model was loaded
  // Made by the first step: inference needs none of their memory.
  std::unique_ptr<te::AdamWOptimizer> optimizer;
  std::unique_ptr<te::LlamaTrainingStep> step;
};

namespace te::c_api {

// The view behind an optional tensor argument of `context`: undefined for NULL.
Status ReadTensor(const te_tensor* tensor, const char* argument, const Context* context,
                  TensorView* out);
// The same for a required one.
Status ReadRequiredTensor(const te_tensor* tensor, const char* argument, const Context* context,
                          TensorView* out);

}  // namespace te::c_api
