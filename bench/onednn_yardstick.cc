#include "bench/onednn_yardstick.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <unordered_map>
#include <utility>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"
#include "oneapi/dnnl/dnnl_version.h"

namespace te::bench {
namespace {

using dnnl::memory;

dnnl::matmul::primitive_desc Plan(const dnnl::engine& engine, memory::data_type type, int64_t n) {
  const memory::dims dims = {n, n};
  const memory::desc plain(dims, type, memory::format_tag::ab);
  const memory::desc any(dims, type, memory::format_tag::any);
#if DNNL_VERSION_MAJOR >= 3
  return dnnl::matmul::primitive_desc(engine, plain, any, plain);
#else
  return dnnl::matmul::primitive_desc(dnnl::matmul::desc(plain, any, plain), engine);
#endif
}

class Yardstick : public GemmYardstick {
 public:
  Yardstick(DType dtype, int64_t n)
      : n_(n),
        engine_(dnnl::engine::kind::cpu, 0),
        desc_(Plan(engine_,
                   dtype == DType::kBFloat16 ? memory::data_type::bf16 : memory::data_type::f32,
                   n)),
        primitive_(desc_),
        a_(Ones(desc_.src_desc(), dtype)),
        b_(Ones(desc_.weights_desc(), dtype)),
        d_(Ones(desc_.dst_desc(), dtype)) {}

  StatusOr<double> Run() override {
    try {
      dnnl::stream stream(engine_);
      const auto start = std::chrono::steady_clock::now();
      primitive_.execute(stream, {{DNNL_ARG_SRC, a_}, {DNNL_ARG_WEIGHTS, b_}, {DNNL_ARG_DST, d_}});
      stream.wait();
      const double seconds =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      const double n = static_cast<double>(n_);
      return 2 * n * n * n / seconds;
    } catch (const dnnl::error& error) {
      return Internal("oneDNN's matmul failed: {}", error.what());
    }
  }

 private:
  // All ones: in a packed layout, too, whatever its padding.
  memory Ones(const memory::desc& desc, DType dtype) {
    memory made(desc, engine_);
    const size_t elements = desc.get_size() / SizeOf(dtype);
    if (dtype == DType::kBFloat16) {
      std::fill_n(static_cast<uint16_t*>(made.get_data_handle()), elements, uint16_t{0x3f80});
    } else {
      std::fill_n(static_cast<float*>(made.get_data_handle()), elements, 1.0f);
    }
    return made;
  }

  int64_t n_;
  dnnl::engine engine_;
  dnnl::matmul::primitive_desc desc_;
  dnnl::matmul primitive_;
  memory a_, b_, d_;
};

}  // namespace

StatusOr<std::unique_ptr<GemmYardstick>> MakeOnednnYardstick(DType dtype, int64_t n,
                                                             int num_threads) {
  if (dtype != DType::kFloat32 && dtype != DType::kBFloat16) {
    return InvalidArgument("GEMM yardstick: dtype is {}; expected float32 or bfloat16",
                           Name(dtype));
  }
  // oneDNN plans for the number of threads it finds, and runs with them.
  omp_set_num_threads(num_threads);
  try {
    return std::unique_ptr<GemmYardstick>(std::make_unique<Yardstick>(dtype, n));
  } catch (const dnnl::error& error) {
    if (error.status == dnnl_unimplemented)
      return Unsupported("oneDNN has no {} matmul on this CPU", Name(dtype));
    return Internal("oneDNN has no {} matmul of size {}: {}", Name(dtype), n, error.what());
  } catch (const std::bad_alloc&) {
    return OutOfMemory("no memory for a {} matmul of size {}", Name(dtype), n);
  }
}

}  // namespace te::bench
