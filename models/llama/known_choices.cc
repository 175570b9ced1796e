#include "models/llama/known_choices.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "models/checkpoint/output_file.h"
#include "models/json/json.h"
#include "models/llama/choices_text.h"

namespace te {
namespace {

// A shape's choice takes some 200 bytes, a step's some 16 shapes: a thousand batch shapes. A file
// that has outgrown it begins anew with what was found last.
constexpr size_t kMaxBytes = size_t{4} << 20;
// Another process has the lock for some milliseconds, on a busy disk longer. What cannot be kept
// now is found again.
constexpr std::chrono::milliseconds kLockWait(2000), kLockPoll(5);

// The key as a file's name: "tuned_choices_NVIDIA_H200_driver_13000_cublasLt_130100_....txt".
std::string FileName(const std::string& key) {
  std::string name = "tuned_choices";
  bool gap = true;
  for (const char c : key) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '-';
    if (plain && gap) name += '_';
    if (plain) name += c;
    gap = !plain;
  }
  return name + ".txt";
}

// Makes a folder with those above it that are missing, for this user alone as XDG asks for.
bool MakeFolders(const std::string& path) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1))
    mkdir(path.substr(0, slash).c_str(), 0700);  // what is there or cannot be shows at the end
  mkdir(path.c_str(), 0700);
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

// An advisory lock on a file beside those that it guards. Where the file system has none (some
// network ones), writers can still not see half of a file, but the later one may drop what the
// other has added.
class FolderLock {
 public:
  explicit FolderLock(const std::string& folder)
      : fd_(open((folder + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW,
                 0600)) {}
  ~FolderLock() {
    if (fd_ >= 0) close(fd_);
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  // False: nobody may write now.
  bool Take() {
    if (fd_ < 0) return false;
    const auto begin = std::chrono::steady_clock::now();
    while (flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK && errno != EINTR) return true;
      if (std::chrono::steady_clock::now() - begin > kLockWait) return false;
      std::this_thread::sleep_for(kLockPoll);
    }
    return true;
  }

 private:
  int fd_;
};

}  // namespace

std::string ChoicesCacheFolder(const char* te_choices_cache, const char* xdg_cache_home,
                               const char* home) {
  const auto absolute = [](const char* path) { return path != nullptr && path[0] == '/'; };
  if (te_choices_cache != nullptr)
    return absolute(te_choices_cache) ? te_choices_cache : std::string();
  if (absolute(xdg_cache_home)) return std::string(xdg_cache_home) + "/te";
  return absolute(home) ? std::string(home) + "/.cache/te" : std::string();
}

std::string ChoicesCacheFolder() {
  return ChoicesCacheFolder(std::getenv("TE_CHOICES_CACHE"), std::getenv("XDG_CACHE_HOME"),
                            std::getenv("HOME"));
}

Status KnownChoices::Pin(Context* context) {
  TE_ASSIGN_OR_RETURN(const std::string key, context->device().ChoicesKey(context->exec()));
  if (key.empty()) return OkStatus();
  if (!folder_.empty()) {
    path_ = folder_ + "/" + FileName(key);
    TE_RETURN_IF_ERROR(PinCache(context));
  }
  for (const std::string_view text : shipped_texts_) {
    TE_ASSIGN_OR_RETURN(
        const bool pinned,
        context->device().PinChoices(context->exec(), std::string(text), PinAs::kShipped));
    shipped_ = shipped_ || pinned;
  }
  kept_searches_ = context->device().Searches(context->exec()).searches;
  return OkStatus();
}

Status KnownChoices::PinCache(Context* context) {
  const StatusOr<std::string> text = ReadTextFile(path_, kMaxBytes);
  if (text.status().code() == StatusCode::kNotFound) return OkStatus();
  StatusOr<bool> pinned = text.status();
  if (text.ok()) {
    ChoicesText parsed;
    pinned = !parsed.Parse(*text)
                 ? StatusOr<bool>(CorruptData("{}: no text of choices", path_))
                 : context->device().PinChoices(context->exec(), *text, PinAs::kKnown);
  }
  if (pinned.ok()) {
    cached_ = *pinned;
    return OkStatus();
  }
  // A folder that is not ours to read is as good as none; a file that is broken is worth a word.
  if (pinned.status().code() == StatusCode::kCorruptData) {
    replace_ = true;
    const std::string& why = pinned.status().message();
    warning_ = (why.starts_with(path_) ? why : path_ + ": " + why) +
               ": ignored, and replaced when there is something to keep";
  } else if (pinned.status().code() != StatusCode::kIoError) {
    return pinned.status();
  }
  return OkStatus();
}

bool KnownChoices::Keep(Context* context) {
  const int64_t searches = context->device().Searches(context->exec()).searches;
  if (path_.empty() || searches == kept_searches_) return kept_;
  kept_searches_ = searches;
  const StatusOr<std::string> found =
      context->device().TunedChoices(context->exec(), WhichChoices::kFound);
  kept_ = found.ok() && Write(*found).ok();
  return kept_;
}

Status KnownChoices::Write(const std::string& text) {
  ChoicesText found;
  if (!found.Parse(text)) return Internal("a device's choices are no text of choices");
  if (!MakeFolders(folder_)) return IoError("{}: cannot be made", folder_);
  FolderLock lock(folder_);
  if (!lock.Take()) return IoError("{}: locked", folder_);
  ChoicesText all;
  const StatusOr<std::string> old = ReadTextFile(path_, kMaxBytes);
  if (old.ok() && !replace_ && all.Parse(*old)) {
    const size_t before = all.count();
    all.Add(found);
    if (all.count() == before) return OkStatus();
  } else {
    all = found;
  }
  std::string merged = all.ToString();
  if (merged.size() > kMaxBytes) merged = found.ToString();
  replace_ = false;
  return ReplaceFile(path_, [&merged](const std::string& new_path) -> Status {
    TE_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create(new_path));
    TE_RETURN_IF_ERROR(file.Write(merged.data(), merged.size()));
    return file.Finish();
  });
}

}  // namespace te
