#!/bin/bash
# te against transformers over odd checkpoint directories (compare_with_te.py).
set -u
exec python3 "$(dirname -- "${BASH_SOURCE[0]}")/compare_with_te.py" "${TE:?set TE to the te program}"
