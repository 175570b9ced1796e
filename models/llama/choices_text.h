// A text of choices (Device::TunedChoices) taken apart, to put several together.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace te {

class ChoicesText {
 public:
  // False: no such text, and nothing changed. What the choices mean is the device's to check.
  bool Parse(std::string_view text);
  // Takes over what `other` has for which nothing is here: the first choice stays.
  void Add(const ChoicesText& other);
  std::string ToString() const;
  size_t count() const;

 private:
  // Under one header, which names a library, what was chosen for each problem.
  using Part = std::pair<std::string, std::map<std::string, std::string>>;
  Part& PartOf(const std::string& header);

  std::vector<Part> parts_;
};

}  // namespace te
