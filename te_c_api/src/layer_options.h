// te_layer_options -> a layer of te_core.
#pragma once

#include <memory>

#include "te/te.h"
#include "te_core/layers/layer.h"

namespace te::c_api {

te_layer_options DefaultLayerOptions();
// The size in ABI version 1: never changed.
inline constexpr size_t kLayerOptionsV1 =
    offsetof(te_layer_options, label_smoothing) + sizeof(double);

// Checks every field (one that the kind does not read must be at its default) and makes the layer.
StatusOr<std::unique_ptr<Layer>> MakeLayer(Context* context, const te_layer_options& options);

}  // namespace te::c_api
