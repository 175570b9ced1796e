// Kills a saving process before each system call that changes a file, and looks at what is left:
// the complete old or the complete new checkpoint, never a mixture, and nothing of the killed run
// after the next one.
#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <map>
#include <set>

#include "models/checkpoint/save.h"
#include "models/checkpoint/testing_files.h"

namespace te {
namespace {

namespace fs = std::filesystem;

// Every path under a folder with what is in it.
using Snapshot = std::map<std::string, std::string>;

Snapshot Take(const std::string& folder) {
  Snapshot out;
  std::error_code error;
  for (const auto& item : fs::recursive_directory_iterator(folder, error)) {
    const std::string name = fs::relative(item.path(), folder).string();
    if (item.is_symlink()) {
      out[name] = "link to " + fs::read_symlink(item.path()).string();
    } else if (item.is_regular_file()) {
      out[name] = ReadFile(item.path().string());
    } else {
      out[name] = "folder";
    }
  }
  return out;
}

// The kernel's ptrace_syscall_info at the entry of a call (ptrace(2)); headers disagree about its
// name.
struct SyscallEntry {
  uint8_t op;
  uint8_t padding[3];
  uint32_t arch;
  uint64_t instruction_pointer;
  uint64_t stack_pointer;
  uint64_t number;
  uint64_t args[6];
};
constexpr uint8_t kEntry = 1;

bool ChangesFiles(const SyscallEntry& info) {
  switch (info.number) {
    case SYS_write:
    case SYS_pwrite64:
    case SYS_writev:
    case SYS_fsync:
    case SYS_fdatasync:
    case SYS_ftruncate:
    case SYS_renameat2:
    case SYS_renameat:
    case SYS_linkat:
    case SYS_symlinkat:
    case SYS_mkdirat:
    case SYS_unlinkat:
    case SYS_fchmodat:
    case SYS_fchmod:
    case SYS_close:
    case SYS_copy_file_range:
    case SYS_sendfile:
#ifdef SYS_rename
    case SYS_rename:
    case SYS_link:
    case SYS_symlink:
    case SYS_mkdir:
    case SYS_rmdir:
    case SYS_unlink:
    case SYS_chmod:
#endif
      return true;
    case SYS_openat:
      return (info.args[2] & O_CREAT) != 0;
    default:
      return false;
  }
}

// Some containers forbid ptrace, some know less of it: then nothing can be killed at a chosen call.
#define SKIP_WITHOUT_PTRACE()                                                                    \
  if (RunAndKill([] { return close(open("/dev/null", O_RDONLY)), OkStatus(); }, 1000).changes == \
      0)                                                                                         \
  GTEST_SKIP() << "ptrace is not permitted here"

struct Outcome {
  bool finished = false;  // before its `kill_at`-th change
  int exit_code = -1;
  int changes = 0;
};

// Runs `work` in a child and kills that before its `kill_at`-th change of the file system (counted
// from 0).
Outcome RunAndKill(const std::function<Status()>& work, int kill_at) {
  Outcome outcome;
  const pid_t child = fork();
  if (child == 0) {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(99);
    raise(SIGSTOP);
    _exit(work().ok() ? 0 : 1);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  if (!WIFSTOPPED(status)) return outcome;  // exited: not permitted to be traced
  ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
  while (true) {
    ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);  // fails when the child was just killed
    if (waitpid(child, &status, 0) != child) break;
    if (WIFEXITED(status)) {
      outcome.finished = true;
      outcome.exit_code = WEXITSTATUS(status);
      return outcome;
    }
    if (WIFSIGNALED(status)) return outcome;
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != (SIGTRAP | 0x80)) continue;
    SyscallEntry info{};
    ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof(info), &info);
    if (info.op != kEntry || !ChangesFiles(info)) continue;
    if (outcome.changes++ == kill_at) kill(child, SIGKILL);
  }
  return outcome;
}

const std::string kSource = "tests/golden/llama2-bin-single/checkpoint";

// A checkpoint with tokenizer files and a user's own.
void MakeOld(const std::string& folder) {
  std::error_code ignored;
  fs::remove_all(folder, ignored);
  fs::create_directories(folder + "/runs");
  fs::copy(kSource + "/config.json", folder + "/config.json");
  fs::copy(kSource + "/pytorch_model.bin", folder + "/pytorch_model.bin");
  WriteFile(folder + "/tokenizer.json", "a tokenizer");
  WriteFile(folder + "/README.md", "a model card");
  WriteFile(folder + "/runs/events", "mine");
}

// Loads a checkpoint and saves twice its values, in shards.
Status SaveDoubled(const std::string& from, const std::string& to) {
  TE_ASSIGN_OR_RETURN(const auto reader, CheckpointReader::Open(from));
  std::map<std::string, std::vector<float>> values;
  std::vector<SaveTensor> tensors;
  for (const auto& [name, tensor] : reader->tensors()) {
    std::vector<float>& v = values[name];
    v.resize(static_cast<size_t>(tensor.entry->elements));
    const TensorView view(v.data(), DType::kFloat32, Shape(tensor.entry->shape));
    TE_RETURN_IF_ERROR(reader->Read(name, view));
    for (float& x : v) x *= 2;
    tensors.push_back({name, StoredType::kF32, view});
  }
  SaveOptions options;
  options.source_directory = from;
  options.max_shard_bytes = 150000;
  return SaveCheckpoint(to, tensors, options);
}

// Kills `work` at every change and calls `check` on what is left. Returns the number of changes.
int KillEverywhere(const std::function<void()>& prepare, const std::function<Status()>& work,
                   const std::function<void(int)>& check) {
  for (int k = 0; k < 2000; ++k) {
    prepare();
    const Outcome outcome = RunAndKill(work, k);
    if (outcome.finished) {
      EXPECT_EQ(outcome.exit_code, 0);
      return k;
    }
    check(k);
    if (testing::Test::HasFailure()) return k;
  }
  ADD_FAILURE() << "it never finished";
  return 0;
}

TEST(SaveKilledAtEveryWrite, OntoTheModelItselfLeavesTheOldOrTheNew) {
  SKIP_WITHOUT_PTRACE();
  const std::string parent = FreshFolder("");
  const std::string folder = parent + "/model";
  MakeOld(folder);
  const Snapshot before = Take(folder);
  ASSERT_TRUE(SaveDoubled(folder, folder).ok());
  const Snapshot after = Take(folder);
  ASSERT_NE(before, after);
  int old_left = 0, new_left = 0, leftovers = 0;
  const int changes = KillEverywhere(
      [&] { MakeOld(folder); }, [&] { return SaveDoubled(folder, folder); },
      [&](int k) {
        const Snapshot left = Take(folder);
        ASSERT_TRUE(left == before || left == after) << "killed before change " << k;
        (left == before ? old_left : new_left) += 1;
        leftovers += std::distance(fs::directory_iterator(parent), fs::directory_iterator()) > 1;
        // The next run removes what the killed one left, and comes out as if nothing had been.
        MakeOld(folder);
        ASSERT_TRUE(SaveDoubled(folder, folder).ok());
        ASSERT_EQ(std::distance(fs::directory_iterator(parent), fs::directory_iterator()), 1);
        ASSERT_TRUE(Take(folder) == after);
      });
  EXPECT_GT(changes, 30);
  EXPECT_GT(old_left, 20);
  EXPECT_GT(new_left, 3);  // while the old one is being removed
  EXPECT_GT(leftovers, 20);
  std::printf(
      "killed before each of %d changes: %d times the old one was left, %d times the new one\n",
      changes, old_left, new_left);
}

TEST(SaveKilledAtEveryWrite, IntoANewDirectoryLeavesNothingOrAll) {
  SKIP_WITHOUT_PTRACE();
  const std::string parent = FreshFolder("");
  const std::string out = parent + "/out";
  ASSERT_TRUE(SaveDoubled(kSource, out).ok());
  const Snapshot after = Take(out);
  int nothing = 0;
  KillEverywhere([&] { fs::remove_all(out); }, [&] { return SaveDoubled(kSource, out); },
                 [&](int k) {
                   const bool there = fs::exists(out);
                   nothing += !there;
                   ASSERT_TRUE(!there || Take(out) == after) << "killed before change " << k;
                 });
  EXPECT_GT(nothing, 10);
}

// The twin: a saver that writes in place is caught.
TEST(SaveKilledAtEveryWrite, TheTestCatchesASaverThatWritesInPlace) {
  SKIP_WITHOUT_PTRACE();
  const std::string folder = FreshFolder("") + "/model";
  MakeOld(folder);
  const Snapshot before = Take(folder);
  const auto write_in_place = [&]() {
    for (const char* name : {"/config.json", "/model.safetensors"}) {
      const int fd = open((folder + name).c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
      if (fd < 0 || write(fd, name, 5) != 5 || close(fd) != 0) return IoError("write");
    }
    return OkStatus();
  };
  ASSERT_TRUE(write_in_place().ok());
  const Snapshot after = Take(folder);
  int mixtures = 0;
  KillEverywhere([&] { MakeOld(folder); }, write_in_place,
                 [&](int) {
                   const Snapshot left = Take(folder);
                   mixtures += left != before && left != after;
                 });
  EXPECT_GT(mixtures, 2);
}

}  // namespace
}  // namespace te
