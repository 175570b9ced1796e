#include <exception>
#include <new>

#include "models/cli/command_line.h"
#include "models/cli/console.h"
#include "models/cli/exit_code.h"

int main(int argc, char** argv) {
  // Our functions return Status; what a library or the allocator throws all the same ends here, not
  // in a stack trace.
  te::PrepareStandardStreams();
  try {
    return te::RunCommandLine(argc, argv);
  } catch (const std::bad_alloc&) {
    te::PrintError("te", "out of memory");
  } catch (const std::exception& error) {
    te::PrintError("te", std::string("internal error: ") + error.what());
  }
  return te::kExitFailed;
}
