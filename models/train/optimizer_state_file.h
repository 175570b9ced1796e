// te_optimizer_state.safetensors: what a training run needs beside its weights to go on bit for
// bit.
//
// A safetensors file (readable by any reader of the format). For each trained parameter NAME, a
// GEMM operand under Transformer Engine's full name ("model.layers.0.layernorm_mlp.fc1_weight"):
//   NAME.exp_avg, NAME.exp_avg_sq  AdamW's two moments, F32 or BF16, of the parameter's shape
//   NAME.master                    F32: its master copy, where there is one
//   NAME.param                     its value, in the dtype it trains in, where the weight files
//                                  beside this one round it
//   NAME.fp8_data                  of a weight that exists in FP8 alone: its codes, U8
//   NAME.fp8_scale_inv, NAME.fp8_scale, NAME.fp8_amax
//                                  F32 [1]: what the codes are read with, what the next ones are
//                                  written with, the amax of the values behind these
// Metadata, numbers as decimal text:
//   te_optimizer_state      "1", the version of this format
//   step                    updates made: AdamW's t
//   position                steps of the training loop: updates, and steps that were skipped
//   because
//                           no token counted. With `run` it says which data come next and which
//                           learning rate
//   seed, rng_offset        of the context: dropout and stochastic rounding go on from there
//   calibration_steps       steps of FP8 calibration that are still to come
//   fp8_tensors             quantized tensors in the FP8 state beside this file; 0: there is none
//   random_stream.NAME      what the parameter's stochastic rounding draws from
//   run.KEY                 what the writing program wants to find again (te finetune: its flags)
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "models/checkpoint/safetensors.h"
#include "te_core/optimizer/adamw_optimizer.h"

namespace te {

// Full name of each trained parameter.
using ParameterNames = std::map<const Parameter*, std::string>;

struct OptimizerStateInfo {
  int64_t step = 0;
  int64_t position = 0;
  int64_t calibration_steps = 0;
  int64_t fp8_tensors = 0;
  uint64_t seed = 0;
  uint64_t rng_offset = 0;
  std::map<std::string, std::string> run;
};

// Creates `path`, which must not exist, and syncs it: tensor after tensor, through 1 MiB of host
// memory. `info` gives position, calibration_steps, fp8_tensors and run; the rest is the
// optimizer's and its context's. `with_value`: of which parameters the value is written, too (null:
// of none). kInternal: a parameter without a name.
Status WriteOptimizerState(const std::string& path, AdamWOptimizer* optimizer,
                           const ParameterNames& names, const OptimizerStateInfo& info,
                           const std::function<bool(const Parameter&)>& with_value);

// Thread-compatible.
class OptimizerStateFile {
 public:
  // Reads the header. kNotFound, kIoError, kCorruptData: names the file, the key, and what was
  // expected.
  static StatusOr<std::unique_ptr<OptimizerStateFile>> Open(const std::string& path);

  const std::string& path() const { return file_->path(); }
  const OptimizerStateInfo& info() const { return info_; }
  // Number of parameters that it has moments of.
  int64_t parameters() const { return static_cast<int64_t>(streams_.size()); }

  // Puts the state into the optimizer, its context and, where the file has them, the parameters.
  // The file must have exactly the optimizer's tensors: kInvalidArgument names the one that is
  // missing, too many, of another shape or dtype; or the seed, which must be the context's.
  // kCorruptData: a moment that no AdamW leaves (NaN, a negative exp_avg_sq). Every value has been
  // read and checked before the first one is put in place, so on these errors nothing has changed.
  Status Load(AdamWOptimizer* optimizer, const ParameterNames& names) const;

 private:
  struct Target;
  OptimizerStateFile() = default;
  Status ReadMetadata();
  Status CheckValues(const Target& target) const;

  std::unique_ptr<SafetensorsFile> file_;
  OptimizerStateInfo info_;
  std::map<std::string, uint32_t> streams_;  // by parameter
};

}  // namespace te
