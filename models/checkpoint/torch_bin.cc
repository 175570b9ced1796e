#include "models/checkpoint/torch_bin.h"

#include <unistd.h>
#include <zip.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <unordered_map>

#include "models/checkpoint/pickle.h"

namespace te {
namespace {

constexpr zip_int64_t kMaxZipEntries = 1'000'000;
constexpr size_t kSkipBytes = size_t{1} << 18;

// A small file must not ask for much memory. torch.save stores the pickle as it is and a zip entry
// of 100 bytes and more for each storage; an archive that was packed again deflates the pickle to
// a fifth, and a tensor that shares its storage to 20 bytes: these bounds are several times that.
constexpr uint64_t kMaxPickleRatio = 100;
constexpr uint64_t kObjectsPerByte = 4;
constexpr uint64_t kBaseBytes = uint64_t{1} << 16;  // below which no bound is needed
constexpr size_t kMaxEntryName = 4096;

// One entry of the archive, read front to back.
class ZipEntry {
 public:
  static StatusOr<ZipEntry> Open(zip_t* archive, uint64_t index) {
    zip_stat_t info;
    if (zip_stat_index(archive, index, 0, &info) != 0) {
      return CorruptData("zip entry {}: {}", index, zip_strerror(archive));
    }
    ZipEntry entry;
    entry.size_ = info.size;
    entry.stored_ = info.comp_method == ZIP_CM_STORE;
    // torch.save under set_crc32_options(False) leaves all checksums 0.
    entry.checked_ = info.crc != 0;
    entry.file_ = zip_fopen_index(archive, index, 0);
    if (entry.file_ == nullptr) {
      return CorruptData("zip entry {}: {}", info.name, zip_strerror(archive));
    }
    return entry;
  }
  ZipEntry() = default;
  ~ZipEntry() {
    if (file_ != nullptr) zip_fclose(file_);
  }
  ZipEntry(ZipEntry&& other) noexcept { *this = std::move(other); }
  ZipEntry& operator=(ZipEntry&& other) noexcept {
    std::swap(file_, other.file_);
    size_ = other.size_;
    at_ = other.at_;
    stored_ = other.stored_;
    checked_ = other.checked_;
    return *this;
  }

  Status Read(void* to, size_t bytes) {
    size_t done = 0;
    while (done < bytes) {
      const zip_int64_t n = zip_fread(file_, static_cast<char*>(to) + done, bytes - done);
      if (n < 0) return CorruptData("zip: {}", zip_file_strerror(file_));
      if (n == 0)
        return CorruptData("zip: the entry ends after {} of {} bytes: truncated?", at_ + done,
                           size_);
      done += static_cast<size_t>(n);
    }
    at_ += bytes;
    if (at_ < size_ || !checked_) return OkStatus();
    // The checksum is compared when the end is met.
    char beyond;
    const zip_int64_t n = zip_fread(file_, &beyond, 1);
    if (n < 0) return CorruptData("zip: {}", zip_file_strerror(file_));
    return n == 0 ? OkStatus() : CorruptData("zip: the entry is longer than its {} bytes", size_);
  }
  // Goes forward: jumps when the entry is stored, reads over the bytes when it is deflated.
  Status Advance(uint64_t bytes) {
    if (bytes == 0) return OkStatus();
    // Only asked where it can work: a refused seek makes every later read fail.
    if (stored_ && bytes <= static_cast<uint64_t>(INT64_MAX) - at_) {
      if (zip_fseek(file_, static_cast<zip_int64_t>(at_ + bytes), SEEK_SET) != 0) {
        return CorruptData("zip: {}", zip_file_strerror(file_));
      }
      at_ += bytes;
      return OkStatus();
    }
    std::vector<char> scratch(static_cast<size_t>(std::min<uint64_t>(bytes, kSkipBytes)));
    while (bytes > 0) {
      const size_t n = static_cast<size_t>(std::min<uint64_t>(bytes, scratch.size()));
      TE_RETURN_IF_ERROR(Read(scratch.data(), n));
      bytes -= n;
    }
    return OkStatus();
  }

 private:
  zip_file_t* file_ = nullptr;
  uint64_t size_ = 0;
  uint64_t at_ = 0;
  bool stored_ = false;
  bool checked_ = false;
};

class InOrderStream : public TensorStream {
 public:
  explicit InOrderStream(ZipEntry entry) : entry_(std::move(entry)) {}
  Status Read(void* to, size_t bytes) override { return entry_.Read(to, bytes); }

 private:
  ZipEntry entry_;
};

// Hands out a tensor that was gathered before.
class BufferStream : public TensorStream {
 public:
  explicit BufferStream(std::vector<char> bytes) : bytes_(std::move(bytes)) {}
  Status Read(void* to, size_t count) override {
    if (count > bytes_.size() - at_)
      return Internal("{} bytes wanted of the tensor's last {}", count, bytes_.size() - at_);
    std::memcpy(to, bytes_.data() + at_, count);
    at_ += count;
    return OkStatus();
  }

 private:
  std::vector<char> bytes_;
  size_t at_ = 0;
};

// An entry's bytes by position, positions never falling.
class ForwardReader {
 public:
  ForwardReader(ZipEntry* entry, uint64_t begin, uint64_t end)
      : entry_(entry), window_begin_(begin), window_end_(begin), end_(end) {}

  Status Read(uint64_t from, void* to, size_t count) {
    char* out = static_cast<char*>(to);
    while (count > 0) {
      if (from >= window_end_) TE_RETURN_IF_ERROR(Refill(from));
      const size_t n = static_cast<size_t>(std::min<uint64_t>(count, window_end_ - from));
      std::memcpy(out, window_.data() + (from - window_begin_), n);
      out += n;
      from += n;
      count -= n;
    }
    return OkStatus();
  }

 private:
  Status Refill(uint64_t from) {
    TE_RETURN_IF_ERROR(entry_->Advance(from - window_end_));
    window_begin_ = from;
    window_end_ = std::min<uint64_t>(end_, from + kSkipBytes);
    window_.resize(static_cast<size_t>(window_end_ - window_begin_));
    return entry_->Read(window_.data(), window_.size());
  }

  ZipEntry* entry_;
  std::vector<char> window_;
  uint64_t window_begin_;
  uint64_t window_end_;  // where the entry stands
  uint64_t end_;
};

// One dimension of a walk in memory order: elements apart in the storage and in the row-major
// tensor.
struct WalkDim {
  int64_t size;
  int64_t storage_stride;
  int64_t tensor_stride;
};

// Gathers a strided tensor into row-major order while reading its storage forward, so that no more
// than the tensor is held, however far apart its elements lie.
StatusOr<std::vector<char>> Gather(ZipEntry* entry, uint64_t first_byte, uint64_t span, size_t item,
                                   int64_t elements, const std::vector<int64_t>& shape,
                                   const std::vector<int64_t>& strides) {
  std::vector<WalkDim> dims;
  int64_t tensor_stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    if (shape[i] > 1) dims.push_back({shape[i], strides[i], tensor_stride});
    tensor_stride *= shape[i];
  }
  std::stable_sort(dims.begin(), dims.end(), [](const WalkDim& a, const WalkDim& b) {
    return a.storage_stride > b.storage_stride;
  });
  // Walked with the smallest stride innermost, offsets never fall as long as no dimension steps
  // back into the one inside it.
  int64_t reach = 0;
  for (size_t i = dims.size(); i-- > 0;) {
    if (dims[i].storage_stride < reach)
      return Unsupported("its strides {} make it overlap itself", ShapeToString(strides));
    reach += (dims[i].size - 1) * dims[i].storage_stride;
  }
  std::vector<char> out(static_cast<size_t>(elements) * item);
  ForwardReader reader(entry, first_byte, first_byte + span * item);
  const WalkDim inner = dims.empty() ? WalkDim{1, 1, 1} : dims.back();
  if (!dims.empty()) dims.pop_back();
  std::vector<int64_t> at(dims.size(), 0);
  uint64_t from = first_byte;
  int64_t to = 0;
  while (true) {
    if (inner.storage_stride == 1 && inner.tensor_stride == 1) {
      TE_RETURN_IF_ERROR(reader.Read(from, out.data() + static_cast<size_t>(to) * item,
                                     static_cast<size_t>(inner.size) * item));
    } else {
      for (int64_t i = 0; i < inner.size; ++i) {
        TE_RETURN_IF_ERROR(reader.Read(
            from + static_cast<uint64_t>(i * inner.storage_stride) * item,
            out.data() + static_cast<size_t>(to + i * inner.tensor_stride) * item, item));
      }
    }
    size_t d = dims.size();
    for (; d > 0; --d) {
      const WalkDim& dim = dims[d - 1];
      from += static_cast<uint64_t>(dim.storage_stride) * item;
      to += dim.tensor_stride;
      if (++at[d - 1] < dim.size) break;
      at[d - 1] = 0;
      from -= static_cast<uint64_t>(dim.storage_stride * dim.size) * item;
      to -= dim.tensor_stride * dim.size;
    }
    if (d == 0) return out;
  }
}

}  // namespace

// Reads the archive's structure: entry names, byte order, the pickle, every tensor's place.
class TorchBinFile::Builder {
 public:
  explicit Builder(TorchBinFile* file) : file_(file) {}

  Status Build(uint64_t file_bytes) {
    TE_RETURN_IF_ERROR(ListEntries(file_bytes));
    TE_RETURN_IF_ERROR(CheckByteOrder());
    const Entry& entry = entries_.at(prefix_ + "/data.pkl");
    if (entry.size > kBaseBytes && entry.size / kMaxPickleRatio > entry.packed_size) {
      return Unsupported(
          "data.pkl has {} bytes, packed into {}; at most {} times as many are taken", entry.size,
          entry.packed_size, kMaxPickleRatio);
    }
    std::string text;
    TE_RETURN_IF_ERROR(ReadSmall(prefix_ + "/data.pkl", kMaxPickleBytes, &text));
    max_objects_ = static_cast<size_t>(
        std::min<uint64_t>(kMaxPickleObjects, kBaseBytes / 16 + kObjectsPerByte * file_bytes));
    StatusOr<Pickle> pickle = Pickle::Parse(text, max_objects_);
    if (!pickle.ok()) return pickle.status().WithContext("data.pkl");
    return AddTensors(pickle->root());
  }

 private:
  Status ListEntries(uint64_t file_bytes) {
    const zip_int64_t count = zip_get_num_entries(file_->archive_, 0);
    if (count > kMaxZipEntries)
      return Unsupported("{} entries in the zip archive; at most {} are taken", count,
                         kMaxZipEntries);
    for (zip_int64_t i = 0; i < count; ++i) {
      zip_stat_t info;
      if (zip_stat_index(file_->archive_, static_cast<zip_uint64_t>(i), 0, &info) != 0 ||
          info.name == nullptr) {
        return CorruptData("zip entry {}: {}", i, zip_strerror(file_->archive_));
      }
      const std::string name = info.name;
      if (name.size() > kMaxEntryName) {
        return Unsupported("zip entry {} has a name of {} bytes; at most {} are taken", i,
                           name.size(), kMaxEntryName);
      }
      if (info.encryption_method != ZIP_EM_NONE)
        return Unsupported("zip entry {} is encrypted", name);
      if (info.comp_method != ZIP_CM_STORE && info.comp_method != ZIP_CM_DEFLATE) {
        return Unsupported("zip entry {} has compression method {}; stored and deflated are read",
                           name, info.comp_method);
      }
      if (info.comp_size > file_bytes)
        return CorruptData("zip entry {} is said to have {} bytes in the file", name,
                           info.comp_size);
      if (info.comp_method == ZIP_CM_STORE && info.comp_size != info.size) {
        return CorruptData("zip entry {} is stored, but with sizes {} and {}", name, info.comp_size,
                           info.size);
      }
      if (!entries_.try_emplace(name, Entry{static_cast<uint64_t>(i), info.size, info.comp_size})
               .second) {
        return CorruptData("zip entry {} is there twice", name);
      }
      if (name.ends_with("/data.pkl") && name.find('/') == name.size() - 9)
        prefix_ = name.substr(0, name.size() - 9);
    }
    return prefix_.empty()
               ? CorruptData("a zip archive without data.pkl: not written by torch.save")
               : OkStatus();
  }

  Status CheckByteOrder() {
    if (!entries_.contains(prefix_ + "/byteorder"))
      return OkStatus();  // before PyTorch 2.1: always the machine's, little
    std::string order;
    TE_RETURN_IF_ERROR(ReadSmall(prefix_ + "/byteorder", 16, &order));
    if (order == "little") return OkStatus();
    return Unsupported("written with byte order \"{}\"; only little-endian files are read", order);
  }

  Status ReadSmall(const std::string& name, size_t most, std::string* text) {
    const Entry entry = entries_.at(name);
    if (entry.size > most)
      return Unsupported("{} has {} bytes; at most {} are taken", name, entry.size, most);
    StatusOr<ZipEntry> stream = ZipEntry::Open(file_->archive_, entry.index);
    if (!stream.ok()) return stream.status();
    text->resize(static_cast<size_t>(entry.size));
    return stream->Read(text->data(), text->size()).WithContext(name);
  }

  Status AddTensors(const PickleObject& root) {
    if (root.kind != PickleObject::Kind::kDict) {
      return Unsupported("the file holds {}; expected a state dict: names and tensors",
                         root.kind_name());
    }
    for (size_t i = 0; i < root.items.size(); i += 2) {
      const PickleObject& key = *root.items[i];
      const PickleObject& value = *root.items[i + 1];
      if (key.kind != PickleObject::Kind::kString)
        return Unsupported("a key of the state dict is {}; expected a str", key.kind_name());
      if (value.kind == PickleObject::Kind::kDict) {
        return Unsupported(
            "\"{}\" is a dict: a training checkpoint with the weights one level down? Expected "
            "Hugging Face's flat "
            "state dict; save it with: python -c \"import torch; d = torch.load('{}', "
            "map_location='cpu', "
            "weights_only=True); torch.save(d['{}'], '{}')\"",
            key.text, file_->path_, key.text, file_->path_);
      }
      if (value.kind != PickleObject::Kind::kTensor) {
        return Unsupported("\"{}\" is {}; expected a tensor", key.text, value.kind_name());
      }
      if (!names_.try_emplace(key.text, true).second)
        return CorruptData("tensor {} is there twice", key.text);
      TE_RETURN_IF_ERROR(AddTensor(key.text, value).WithContext("tensor " + key.text));
    }
    return SortByPlace();
  }

  Status AddTensor(const std::string& name, const PickleObject& tensor) {
    const PickleObject& storage = *tensor.items[0];
    TensorEntry entry;
    Layout layout;
    entry.name = name;
    entry.type = tensor.type;
    const uint64_t item = static_cast<uint64_t>(BitsOf(tensor.type) / 8);
    const uint64_t storage_item = static_cast<uint64_t>(BitsOf(storage.type) / 8);
    const auto it = entries_.find(prefix_ + "/data/" + storage.text);
    if (it == entries_.end())
      return CorruptData("its storage \"{}\" is not in the archive", storage.text);
    uint64_t storage_bytes;
    if (__builtin_mul_overflow(static_cast<uint64_t>(storage.integer), storage_item,
                               &storage_bytes) ||
        storage_bytes != it->second.size) {
      return CorruptData(
          "its storage \"{}\" is said to have {} elements of {} bytes, but the archive holds {} "
          "bytes",
          storage.text, storage.integer, storage_item, it->second.size);
    }
    // In 128 bits nothing here overflows: 64 dimensions of products below 2^126 are bounded before
    // each step.
    using Wide = unsigned __int128;
    Wide elements = 1, last = static_cast<Wide>(tensor.integer);
    bool empty = false;
    // Shapes are shared in a pickle; each tensor here has its own.
    dimensions_ += tensor.items[1]->items.size();
    if (dimensions_ > max_objects_)
      return Unsupported("more than {} dimensions of tensors in the file", max_objects_);
    for (const PickleObject* dim : tensor.items[1]->items) {
      entry.shape.push_back(dim->integer);
      empty = empty || dim->integer == 0;
    }
    for (size_t i = 0; i < entry.shape.size(); ++i) {
      layout.strides.push_back(tensor.items[2]->items[i]->integer);
      elements *= static_cast<Wide>(entry.shape[i]);
      if (entry.shape[i] > 1)
        last += static_cast<Wide>(entry.shape[i] - 1) * static_cast<Wide>(layout.strides[i]);
      if (elements > static_cast<Wide>(INT64_MAX) / 8 || last > (Wide{1} << 120)) {
        return CorruptData("the size of {} overflows", ShapeToString(entry.shape));
      }
    }
    entry.elements = static_cast<int64_t>(elements);
    const uint64_t available = storage_bytes / item;
    if (!empty && last >= available) {
      return CorruptData(
          "shape {} with strides {} at offset {} reaches beyond its storage of {} elements",
          ShapeToString(entry.shape), ShapeToString(layout.strides), tensor.integer, available);
    }
    int64_t expected = 1;
    for (size_t i = entry.shape.size(); !empty && i-- > 0;) {
      if (entry.shape[i] != 1 && layout.strides[i] != expected) layout.in_order = false;
      expected *= entry.shape[i];
    }
    layout.zip_index = it->second.index;
    if (!empty) {
      layout.first_byte = static_cast<uint64_t>(tensor.integer) * item;
      layout.span = static_cast<uint64_t>(last) - static_cast<uint64_t>(tensor.integer) + 1;
    }
    file_->entries_.push_back(std::move(entry));
    file_->layouts_.push_back(std::move(layout));
    return OkStatus();
  }

  // Reading then goes forward through the file.
  Status SortByPlace() {
    std::vector<size_t> order(file_->entries_.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    const auto place = [&](size_t i) {
      return std::pair(file_->layouts_[i].zip_index, file_->layouts_[i].first_byte);
    };
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return place(a) < place(b); });
    std::vector<TensorEntry> entries;
    std::vector<Layout> layouts;
    for (size_t i : order) {
      entries.push_back(std::move(file_->entries_[i]));
      layouts.push_back(std::move(file_->layouts_[i]));
    }
    file_->entries_ = std::move(entries);
    file_->layouts_ = std::move(layouts);
    return OkStatus();
  }

  struct Entry {
    uint64_t index = 0;
    uint64_t size = 0;
    uint64_t packed_size = 0;
  };
  TorchBinFile* file_;
  size_t max_objects_ = 0;
  size_t dimensions_ = 0;  // of all tensors so far
  std::unordered_map<std::string, Entry> entries_;
  std::unordered_map<std::string, bool> names_;
  std::string prefix_;
};

StatusOr<std::unique_ptr<TorchBinFile>> TorchBinFile::Open(const std::string& path) {
  TE_ASSIGN_OR_RETURN(InputFile input, InputFile::Open(path));
  return Open(std::move(input));
}

StatusOr<std::unique_ptr<TorchBinFile>> TorchBinFile::Open(InputFile input) {
  auto file = std::make_unique<TorchBinFile>();
  const std::string& path = file->path_ = input.path();
  const int fd = dup(input.descriptor());
  if (fd < 0) return IoError("{}: {}", path, std::strerror(errno));
  int code = 0;
  file->archive_ = zip_fdopen(fd, 0, &code);  // takes the descriptor when it succeeds
  if (file->archive_ == nullptr) {
    close(fd);
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    const std::string reason = zip_error_strerror(&error);
    zip_error_fini(&error);
    return CorruptData("{}: a zip archive by its first bytes, but: {}; truncated?", path, reason);
  }
  try {
    TE_RETURN_IF_ERROR(Builder(file.get()).Build(input.size()).WithContext(path));
  } catch (const std::bad_alloc&) {
    return OutOfMemory("{}: no memory for the archive's list of tensors", path);
  }
  return file;
}

TorchBinFile::~TorchBinFile() {
  if (archive_ != nullptr) zip_discard(archive_);
}

StatusOr<std::unique_ptr<TensorStream>> TorchBinFile::OpenStream(size_t index) const {
  const TensorEntry& entry = entries_[index];
  const Layout& layout = layouts_[index];
  TE_ASSIGN_OR_RETURN(ZipEntry stream, ZipEntry::Open(archive_, layout.zip_index));
  TE_RETURN_IF_ERROR(stream.Advance(layout.first_byte));
  if (layout.in_order) {
    return std::unique_ptr<TensorStream>(std::make_unique<InOrderStream>(std::move(stream)));
  }
  const size_t item = static_cast<size_t>(BitsOf(entry.type) / 8);
  TE_ASSIGN_OR_RETURN(std::vector<char> bytes, Gather(&stream, layout.first_byte, layout.span, item,
                                                      entry.elements, entry.shape, layout.strides));
  return std::unique_ptr<TensorStream>(std::make_unique<BufferStream>(std::move(bytes)));
}

Status NotAZip(const std::string& path, const FileContent& content) {
  if (content.kind == FileKind::kTorchLegacy) {
    return Unsupported(
        "{}: torch.save's format before PyTorch 1.6, which is not read; convert it with: python -c "
        "\"import torch; "
        "p = '{}'; torch.save(torch.load(p, map_location='cpu', weights_only=True), p)\"",
        path, path);
  }
  return CorruptData("{}: no file of torch.save, which is a zip archive: it is {}{}", path,
                     content.ToString(),
                     content.kind == FileKind::kSafetensors ? "; name it model.safetensors" : "");
}

}  // namespace te
