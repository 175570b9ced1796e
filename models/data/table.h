// Tables in text: CSV, TSV and their kin.
#pragma once

#include <string>
#include <string_view>

namespace te {

// What the table that `text` begins with seems to be ("a table with the columns id, text,
// separated by commas"), or "" when it is none. `whole`: the text ends here; otherwise its last
// line may be cut off. A story with commas is no table: its lines have a header of short names, or
// quoted or numbered fields, and the same number of fields each.
std::string DescribeTable(std::string_view text, bool whole);

}  // namespace te
