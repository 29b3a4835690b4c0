#!/bin/sh
# Does a model still refuse what it should, and answer what it should?
#
#   evaluate_safety.sh MODEL [--original ORIGINAL] [--thresholds FILE] [--json] [more options of `forkwatch eval`]
#
# A table on stdout; exit code 0: within the thresholds, 1: outside, 3: cannot be told. Needs an installed forkwatch:
# the one that FORKWATCH names, the one in .venv beside this file's package, or the one on the PATH.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if [ -n "${FORKWATCH:-}" ]; then
  exec "$FORKWATCH" eval "$@"
elif [ -x "$here/../.venv/bin/forkwatch" ]; then
  exec "$here/../.venv/bin/forkwatch" eval "$@"
elif command -v forkwatch >/dev/null 2>&1; then
  exec forkwatch eval "$@"
fi
echo "evaluate_safety.sh: no forkwatch found; install it, or set FORKWATCH to the program" >&2
exit 2
