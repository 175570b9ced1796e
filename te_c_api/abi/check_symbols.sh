#!/bin/sh
# usage: check_symbols.sh LIBRARY SYMBOLS HEADER
# Exported names and the versions that they came with = checked-in list; its names = functions of the header: a symbol comes
# or goes only by a reviewed change of the list, and never moves to another version.
set -eu
library=$1 symbols=$2 header=$3
dir=${TEST_TMPDIR:-$(mktemp -d)}
nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@+/, " ", $3); print $3 }' | LC_ALL=C sort -u >"$dir/exported"
awk '{ print $1 }' "$symbols" >"$dir/listed"
grep -E '^TE_API' "$header" | grep -oE 'te_[a-z0-9_]+\(' | tr -d '(' | LC_ALL=C sort -u >"$dir/declared"
LC_ALL=C sort -c "$symbols" || { echo "$symbols is not sorted" >&2; exit 1; }
status=0
diff -u "$symbols" "$dir/exported" >&2 || { echo "exported symbols (+) differ from $symbols (-)" >&2; status=1; }
diff -u "$dir/listed" "$dir/declared" >&2 || { echo "functions of $header (+) differ from $symbols (-)" >&2; status=1; }
soname=$(readelf -d "$library" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
[ "$soname" = libte.so.1 ] || { echo "SONAME is '$soname'; expected libte.so.1" >&2; status=1; }
exit $status
