// The command line of `te`.
#pragma once

namespace te {

// Runs one command; returns the process's exit code.
int RunCommandLine(int argc, char** argv);

}  // namespace te
