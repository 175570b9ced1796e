// A device that chooses by timing, for tests: the CPU's, with choices that a test can see and make.
#pragma once

#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <utility>

#include "te_core/context.h"
#include "te_kernels/testing/checked.h"

namespace te::test {

// What a ChoosingDevice has, which the test keeps.
struct Choosing {
  std::string card = "card";
  std::map<std::string, std::string> own, known, found;  // by problem
  int64_t searches = 0;

  void Find(const std::string& problem, const std::string& choice) {
    found[problem] = choice;
    ++searches;
  }
};

// Text of choices: "te choices of CARD", and a line a problem. "te choices of any" is for any card,
// where it ships. A card without a name chooses nothing by timing.
class ChoosingDevice : public Device {
 public:
  explicit ChoosingDevice(Choosing* choosing) : choosing_(choosing) {}

  StatusOr<std::string> ChoicesKey(const Exec&) override { return choosing_->card; }
  StatusOr<std::string> TunedChoices(const Exec&, WhichChoices which) override {
    if (choosing_->card.empty()) return std::string();
    std::map<std::string, std::string> choices = choosing_->found;
    if (which == WhichChoices::kOfRun) choices.insert(choosing_->own.begin(), choosing_->own.end());
    std::string text = "te choices of " + choosing_->card + "\n";
    for (const auto& [problem, choice] : choices) text.append(problem + " : " + choice + "\n");
    return text;
  }
  StatusOr<bool> PinChoices(const Exec&, const std::string& text, PinAs as) override {
    std::istringstream lines(text);
    std::string line;
    std::getline(lines, line);
    if (!line.starts_with("te choices of ")) return CorruptData("line 1: '{}'", line);
    if (line != "te choices of " + choosing_->card &&
        !(as == PinAs::kShipped && line == "te choices of any"))
      return false;
    std::map<std::string, std::string> read;
    for (int number = 2; std::getline(lines, line); ++number) {
      const size_t colon = line.find(" : ");
      if (colon == std::string::npos) return CorruptData("line {}: '{}'", number, line);
      if (line.substr(colon + 3) == "nonsense") return CorruptData("line {}: '{}'", number, line);
      read[line.substr(0, colon)] = line.substr(colon + 3);
    }
    for (const auto& [problem, choice] : read) {
      if (as == PinAs::kOwn) {
        choosing_->own[problem] = choice;
      } else if (!choosing_->own.contains(problem)) {
        choosing_->known.try_emplace(problem, choice);
      }
    }
    return true;
  }
  SearchTotals Searches(const Exec&) override { return {.searches = choosing_->searches}; }

  const char* name() const override { return cpu_->name(); }
  const KernelTable& kernels() const override { return cpu_->kernels(); }
  int default_threads() const override { return 1; }
  StatusOr<void*> NewStream() override { return cpu_->NewStream(); }
  void FreeStream(void* stream) override { cpu_->FreeStream(stream); }
  StatusOr<std::unique_ptr<LibraryState>> NewLibraryState() override {
    return cpu_->NewLibraryState();
  }
  Status CopyToHost(const Exec& exec, const void* from, void* to, size_t bytes) override {
    return cpu_->CopyToHost(exec, from, to, bytes);
  }
  Status CopyFromHost(const Exec& exec, const void* from, void* to, size_t bytes) override {
    return cpu_->CopyFromHost(exec, from, to, bytes);
  }
  Status Zero(const Exec& exec, void* at, size_t bytes) override {
    return cpu_->Zero(exec, at, bytes);
  }
  Status Synchronize(const Exec& exec) override { return cpu_->Synchronize(exec); }
  StatusOr<std::unique_ptr<HostMirror>> NewHostMirror(size_t bytes) override {
    return cpu_->NewHostMirror(bytes);
  }
  StatusOr<void*> Allocate(size_t bytes) override { return cpu_->Allocate(bytes); }
  void Free(void* at, size_t bytes) override { cpu_->Free(at, bytes); }

 private:
  std::unique_ptr<Device> cpu_ = Value(MakeDevice("cpu"));
  Choosing* choosing_;
};

inline std::unique_ptr<Context> NewChoosingContext(Choosing* choosing) {
  return Value(Context::Create({}, std::make_unique<ChoosingDevice>(choosing)));
}

}  // namespace te::test
