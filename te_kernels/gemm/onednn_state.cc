#include "te_kernels/gemm/onednn_state.h"

#include <omp.h>

#include <algorithm>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"
#include "oneapi/dnnl/dnnl_version.h"
#include "te_kernels/gemm/amx_matmul.h"

namespace te {
namespace {

using dnnl::memory;

// Beyond this many shapes the least recently used primitive goes: long runs over texts of every
// length stay bounded.
constexpr size_t kMaxPrimitives = 1024;

StatusOr<memory::data_type> ToOnednn(DType dtype) {
  if (dtype == DType::kFloat32) return memory::data_type::f32;
  if (dtype == DType::kBFloat16) return memory::data_type::bf16;
  return Unsupported("oneDNN matmul of {}; expected float32 or bfloat16", Name(dtype));
}

memory::dims DimsOf(const ConstTensorView& view) {
  return memory::dims(view.shape().dims().begin(), view.shape().dims().end());
}

// Keeps what follows in a scratchpad at a cache line's start.
size_t Aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

StatusOr<memory::desc> Describe(const ConstTensorView& view) {
  TE_ASSIGN_OR_RETURN(const memory::data_type type, ToOnednn(view.dtype()));
  memory::dims dims, strides;
  for (int i = 0; i < view.rank(); ++i) {
    dims.push_back(view.dim(i));
    strides.push_back(view.stride(i));
  }
  return memory::desc(dims, type, strides);
}

void AppendKey(const ConstTensorView& view, std::string* key) {
  const auto append = [&](int64_t value) {
    key->append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  append(view.defined() ? static_cast<int64_t>(view.dtype()) : -1);
  append(view.rank());
  for (int i = 0; i < view.rank(); ++i) {
    append(view.dim(i));
    append(view.stride(i));
  }
}

std::string Key(const MatmulSpec& spec) {
  std::string key;
  for (const ConstTensorView* view : {&spec.a, &spec.b, &spec.d, &spec.bias})
    AppendKey(*view, &key);
  key.append(reinterpret_cast<const char*>(&spec.alpha), sizeof(spec.alpha));
  key.push_back(spec.accumulate ? 1 : 0);
  key.push_back(spec.pack_b ? 1 : 0);
  key.append(reinterpret_cast<const char*>(&spec.num_threads), sizeof(spec.num_threads));
  return key;
}

class OnednnMatmul : public Matmul {
 public:
  // `b`: the layout that callers hand in; another one than desc's weights is packed.
  OnednnMatmul(const dnnl::engine& engine, const dnnl::matmul::primitive_desc& desc,
               const memory::desc& b, memory::desc bias)
      : engine_(engine), desc_(desc), primitive_(desc), b_(b), bias_(std::move(bias)) {
    if (desc.weights_desc() == b) return;
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    pack_desc_ = dnnl::reorder::primitive_desc(engine, b, engine, desc.weights_desc(), attributes);
    pack_ = dnnl::reorder(pack_desc_);
    packed_bytes_ = Aligned(desc.weights_desc().get_size());
    pack_scratchpad_bytes_ = pack_desc_.scratchpad_desc().get_size();
  }

  // The packed b, then what the copy and the product use in turn.
  size_t scratchpad_bytes() const override {
    return packed_bytes_ + std::max(pack_scratchpad_bytes_, desc_.scratchpad_desc().get_size());
  }

  Status Execute(const void* a, const void* b, const void* bias, void* d,
                 void* scratchpad) const override {
    try {
      // oneDNN's memory objects do not know const; a, b and bias are only read.
      const auto wrap = [&](const memory::desc& desc, const void* data) {
        return memory(desc, engine_, const_cast<void*>(data));
      };
      dnnl::stream stream(engine_);
      char* const work = static_cast<char*>(scratchpad) + packed_bytes_;
      if (packed_bytes_ != 0) {
        pack_.execute(stream, {{DNNL_ARG_FROM, wrap(b_, b)},
                               {DNNL_ARG_TO, wrap(desc_.weights_desc(), scratchpad)},
                               {DNNL_ARG_SCRATCHPAD, wrap(pack_desc_.scratchpad_desc(), work)}});
        b = scratchpad;
      }
      std::unordered_map<int, memory> args;
      args.emplace(DNNL_ARG_SRC, wrap(desc_.src_desc(), a));
      args.emplace(DNNL_ARG_WEIGHTS, wrap(desc_.weights_desc(), b));
      args.emplace(DNNL_ARG_DST, wrap(desc_.dst_desc(), d));
      if (bias != nullptr) args.emplace(DNNL_ARG_BIAS, wrap(bias_, bias));
      args.emplace(DNNL_ARG_SCRATCHPAD, wrap(desc_.scratchpad_desc(), work));
      primitive_.execute(stream, args);
      stream.wait();
    } catch (const dnnl::error& error) {
      return Internal("oneDNN matmul failed: {}", error.what());
    }
    return OkStatus();
  }

 private:
  dnnl::engine engine_;
  dnnl::matmul::primitive_desc desc_;
  dnnl::matmul primitive_;
  memory::desc b_;
  memory::desc bias_;
  dnnl::reorder::primitive_desc pack_desc_;
  dnnl::reorder pack_;
  size_t packed_bytes_ = 0;  // 0: b is taken as it comes
  size_t pack_scratchpad_bytes_ = 0;
};

bool CpuHasBf16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

class State : public OnednnState {
 public:
  State() : engine_(dnnl::engine::kind::cpu, 0) {}

  StatusOr<std::shared_ptr<const Matmul>> Get(const MatmulSpec& spec) override {
    std::string key = Key(spec);
    if (auto found = primitives_.find(key); found != primitives_.end()) {
      recent_.splice(recent_.begin(), recent_, found->second.position);
      return found->second.matmul;
    }
    TE_ASSIGN_OR_RETURN(std::shared_ptr<const Matmul> made, Make(spec));
    if (primitives_.size() >= kMaxPrimitives) {
      primitives_.erase(recent_.back());
      recent_.pop_back();
    }
    recent_.push_front(key);
    primitives_.emplace(std::move(key), Entry{made, recent_.begin()});
    return made;
  }

  bool native_bf16() const override { return native_bf16_; }
  void set_native_bf16(bool native) override { native_bf16_ = native; }

 private:
  struct Entry {
    std::shared_ptr<const Matmul> matmul;
    std::list<std::string>::iterator position;
  };

  StatusOr<std::shared_ptr<const Matmul>> Make(const MatmulSpec& spec) {
    if (std::shared_ptr<const Matmul> tiled = MakeAmxMatmul(spec)) return tiled;
    TE_ASSIGN_OR_RETURN(const memory::desc a, Describe(spec.a));
    TE_ASSIGN_OR_RETURN(const memory::data_type b_type, ToOnednn(spec.b.dtype()));
    TE_ASSIGN_OR_RETURN(const memory::desc b, Describe(spec.b));
    TE_ASSIGN_OR_RETURN(const memory::desc d, Describe(spec.d));
    memory::desc bias;
    if (spec.bias.defined()) {
      TE_ASSIGN_OR_RETURN(const memory::data_type type, ToOnednn(spec.bias.dtype()));
      memory::dims dims(spec.d.rank(), 1);
      dims.back() = spec.bias.dim(0);
      memory::dims strides(spec.d.rank(), spec.bias.dim(0));
      strides.back() = 1;
      bias = memory::desc(dims, type, strides);
    }
    memory::desc chosen_b = b;
    if (spec.pack_b) chosen_b = memory::desc(DimsOf(spec.b), b_type, memory::format_tag::any);
    // The primitive is planned for the threads that will run it.
    OmpThreads threads(spec.num_threads);
    try {
      dnnl::primitive_attr attributes;
      // A scratchpad of ours: the library's own is per thread of creation and cannot serve several
      // threads.
      attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
      dnnl::post_ops post_ops;
#if DNNL_VERSION_MAJOR >= 3
      if (spec.alpha != 1) post_ops.append_eltwise(dnnl::algorithm::eltwise_linear, spec.alpha, 0);
#else
      if (spec.alpha != 1)
        post_ops.append_eltwise(1, dnnl::algorithm::eltwise_linear, spec.alpha, 0);
#endif
      if (spec.accumulate) post_ops.append_sum(1);
      attributes.set_post_ops(post_ops);
#if DNNL_VERSION_MAJOR >= 3
      dnnl::matmul::primitive_desc desc =
          spec.bias.defined()
              ? dnnl::matmul::primitive_desc(engine_, a, chosen_b, bias, d, attributes)
              : dnnl::matmul::primitive_desc(engine_, a, chosen_b, d, attributes);
#else
      dnnl::matmul::primitive_desc desc(spec.bias.defined()
                                            ? dnnl::matmul::desc(a, chosen_b, bias, d)
                                            : dnnl::matmul::desc(a, chosen_b, d),
                                        attributes, engine_);
#endif
      return std::shared_ptr<const Matmul>(std::make_shared<OnednnMatmul>(engine_, desc, b, bias));
    } catch (const dnnl::error& error) {
      return Internal("oneDNN has no matmul for a {}, b {}, d {}: {}", spec.a.ToString(),
                      spec.b.ToString(), spec.d.ToString(), error.what());
    }
  }

  dnnl::engine engine_;
  bool native_bf16_ = CpuHasBf16();
  std::list<std::string> recent_;  // most recently used first
  std::unordered_map<std::string, Entry> primitives_;
};

}  // namespace

OmpThreads::OmpThreads(int num_threads) : previous_(omp_get_max_threads()) {
  if (num_threads != previous_) omp_set_num_threads(num_threads);
}

OmpThreads::~OmpThreads() {
  if (omp_get_max_threads() != previous_) omp_set_num_threads(previous_);
}

StatusOr<std::unique_ptr<LibraryState>> NewOnednnState() {
  try {
    return std::unique_ptr<LibraryState>(std::make_unique<State>());
  } catch (const dnnl::error& error) {
    return Internal("oneDNN gives no CPU engine: {}", error.what());
  }
}

StatusOr<OnednnState*> GetOnednnState(const Exec& exec) {
  auto* state = dynamic_cast<OnednnState*>(exec.libraries);
  if (state == nullptr) return FailedPrecondition("this Exec has no oneDNN state: use a context's");
  return state;
}

Status RunMatmul(const Exec& exec, MatmulSpec spec, const void* a, const void* b, const void* bias,
                 void* d) {
  TE_ASSIGN_OR_RETURN(OnednnState * state, GetOnednnState(exec));
  spec.num_threads = exec.num_threads;
  TE_ASSIGN_OR_RETURN(const std::shared_ptr<const Matmul> matmul, state->Get(spec));
  ArenaScope scope(exec.scratch);
  TE_ASSIGN_OR_RETURN(void* scratchpad, exec.scratch->Allocate(matmul->scratchpad_bytes()));
  OmpThreads threads(exec.num_threads);
  return matmul->Execute(a, b, bias, d, scratchpad);
}

}  // namespace te
