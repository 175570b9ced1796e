#include "tests/fuzz/replay.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "fmt/format.h"
#include "tests/fuzz/mutate.h"

namespace te::fuzz {
namespace {

constexpr size_t kMaxInput = size_t{1} << 20;

// Which input the other process is at: pages that both have.
struct Current {
  int64_t done = 0;
  int64_t mutation = -1;
  size_t input = 0;
  size_t size = 0;
  unsigned char bytes[kMaxInput];
};

void RunOne(Target target, std::string_view bytes, const ReplayOptions& options, Current* current) {
  current->size = std::min(bytes.size(), kMaxInput);
  std::memcpy(current->bytes, bytes.data(), current->size);
  // SIGPROF ends the process.
  const itimerval limit = {.it_interval = {},
                           .it_value = {.tv_sec = options.seconds_an_input, .tv_usec = 0}};
  setitimer(ITIMER_PROF, &limit, nullptr);
  // A copy of exactly this size: a sanitizer sees a read beyond it.
  const std::vector<uint8_t> copy(bytes.begin(), bytes.end());
  target(copy.data(), copy.size());
  ++current->done;
}

void RunAll(Target target, const ReplayOptions& options, Current* current) {
  std::vector<std::string> corpus;
  for (const auto& [name, bytes] : options.corpus) corpus.push_back(bytes);
  for (current->input = 0; current->input < corpus.size(); ++current->input) {
    for (int k = -1; k < options.mutations; ++k) {
      current->mutation = k;
      const std::string& seed = corpus[current->input];
      RunOne(target, k < 0 ? seed : Mutated(seed, corpus, static_cast<uint64_t>(k)), options,
             current);
    }
  }
}

std::string Explain(int status, const Current& current, const ReplayOptions& options) {
  const std::string how = WIFSIGNALED(status) && WTERMSIG(status) == SIGPROF
                              ? fmt::format("took more than {} s", options.seconds_an_input)
                          : WIFSIGNALED(status)
                              ? fmt::format("ended by signal {}", WTERMSIG(status))
                              : fmt::format("ended with code {}", WEXITSTATUS(status));
  const std::string which =
      options.corpus[current.input].first +
      (current.mutation < 0 ? "" : fmt::format(", mutation {}", current.mutation));
  std::string kept;
  if (!options.keep_finding_in.empty()) {
    kept = options.keep_finding_in + "/finding";
    std::ofstream(kept, std::ios::binary)
        .write(reinterpret_cast<const char*>(current.bytes),
               static_cast<std::streamsize>(current.size));
    kept = "; kept as " + kept;
  }
  return fmt::format("{}: {} (input {} of this run){}", which, how, current.done + 1, kept);
}

}  // namespace

std::string Replay(Target target, const ReplayOptions& options) {
  void* pages =
      mmap(nullptr, sizeof(Current), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) return "no memory for the current input";
  auto* current = new (pages) Current;
  std::fflush(nullptr);
  std::string scratch = "/dev/shm/te_replay_XXXXXX";
  if (mkdtemp(scratch.data()) == nullptr) return "no folder in /dev/shm";
  const pid_t child = fork();
  if (child < 0) return "fork failed";
  if (child == 0) {
    setenv("TE_FUZZ_TMP", scratch.c_str(), 1);
    RunAll(target, options, current);
    std::fflush(nullptr);
    // Not _exit: a sanitizer looks for leaks at the end.
    std::exit(0);
  }
  int status = 0;
  const bool waited = waitpid(child, &status, 0) == child;
  std::error_code ignored;
  std::filesystem::remove_all(scratch, ignored);
  const bool whole = waited && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  std::string reason;
  if (!whole) {
    // After the last input: a leak, which no one input can be blamed for.
    reason = current->input >= options.corpus.size()
                 ? fmt::format("after all {} inputs: code {}", current->done, WEXITSTATUS(status))
                 : Explain(status, *current, options);
  }
  munmap(pages, sizeof(Current));
  return reason;
}

}  // namespace te::fuzz
