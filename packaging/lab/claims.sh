# claims.sh - what the test scripts of the lab share; sourced by them.
#
# A test is a function whose name says what it shows. `claim NAME` runs it, any
# command that fails ends it, and what it printed is shown if it did not hold.
# Claims build on each other, in the order in which a script lists them; CLAIMS
# may hold a pattern of names to run alone. Where nothing after it makes sense
# without it: `claim NAME || conclude`.
# shellcheck shell=bash

tally=/root/.claims # survives a reboot of the guest
touch "$tally"

claim() { # NAME
  local log=/run/claim.log since=${EPOCHREALTIME/./} status took
  if [[ ! $1 =~ ${CLAIMS:-.} ]]; then return; fi
  # Not inside a condition, where bash would forget about `set -e`.
  (
    set -euo pipefail
    "$1"
  ) >"$log" 2>&1 </dev/null
  status=$?
  took=$(((${EPOCHREALTIME/./} - since) / 1000))
  if ((status == 0)); then
    echo ok >>"$tally"
    printf 'ok   %s (%d.%03d s)\n' "$1" $((took / 1000)) $((took % 1000))
    return
  fi
  echo FAIL >>"$tally"
  printf 'FAIL %s (exit status %d)\n' "$1" "$status"
  sed 's/^/     /' "$log"
  echo '     ---- the journal of that time'
  journalctl --since="@$((since / 1000000)).$((since % 1000000))" --output=short-precise --no-pager --lines=60 |
    sed 's/^/     /'
  systemctl reset-failed
  return 1
}

# conclude ends the script with the sums.
conclude() {
  local passed failed
  passed=$(grep -c ok "$tally")
  failed=$(grep -c FAIL "$tally")
  echo "$LAB_SUITE, $(systemctl --version | sed -n '1s/ (.*//p'): $passed passed, $failed failed"
  ((failed == 0 && passed > 0))
  exit
}

# refute ends a claim: `command && refute "..."` is how one says that it must fail.
refute() {
  echo "$*" >&2
  exit 1
}

# fails COMMAND... holds when the command does not succeed.
fails() {
  if "$@"; then refute "this should have failed: $*"; fi
}

# same WHAT GOT WANT
same() {
  [[ $2 == "$3" ]] || refute "$1: got '$2', want '$3'"
}

# contains WHAT TEXT PART
contains() {
  [[ $2 == *"$3"* ]] || refute "$1: no '$3' in: $2"
}

# within SECONDS COMMAND... repeats the command until it succeeds.
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    if ((SECONDS >= deadline)); then refute "not in time: $*"; fi
    sleep 0.1
  done
}

state() { systemctl is-active "$1" || true; }
property() { systemctl show --property="$2" --value "$1"; } # UNIT NAME
