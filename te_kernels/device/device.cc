#include "te_kernels/device/device.h"

#include <charconv>
#include <string>

#ifdef TE_WITH_CPU
#include "te_kernels/device/cpu_device.h"
#endif
#ifdef TE_WITH_CUDA
#include "te_kernels/device/cuda_device.h"
#endif

namespace te {
namespace {

constexpr const char* kDevices =
#if defined(TE_WITH_CPU) && defined(TE_WITH_CUDA)
    "cpu, cuda";
#elif defined(TE_WITH_CUDA)
    "cuda";
#else
    "cpu";
#endif

}  // namespace

Status Device::BeginRecording(const Exec&) {
  return Unsupported("device {} cannot record work", name());
}

StatusOr<std::unique_ptr<RecordedWork>> Device::EndRecording(const Exec&) {
  return Unsupported("device {} cannot record work", name());
}

StatusOr<std::unique_ptr<Device>> MakeDevice(std::string_view name) {
#ifdef TE_WITH_CPU
  if (name == "cpu") return NewCpuDevice();
#endif
#ifdef TE_WITH_CUDA
  constexpr std::string_view kCuda = "cuda";
  if (name == kCuda) return NewCudaDevice(0);
  if (name.starts_with("cuda:")) {
    const std::string_view number = name.substr(kCuda.size() + 1);
    int ordinal = 0;
    const auto [end, error] =
        std::from_chars(number.data(), number.data() + number.size(), ordinal);
    if (error == std::errc() && end == number.data() + number.size() && ordinal >= 0)
      return NewCudaDevice(ordinal);
  }
#endif
  return Unsupported("device '{}': this build has: {}", name, kDevices);
}

}  // namespace te
