# shellcheck shell=bash
# Sourced by peers that can also come out of the root folder of another Debian release, as nginx-tree and haproxy-tree do. TREE
# names the folder; without it, `in_tree COMMAND…` is just COMMAND. The mounts are seen by the command alone and end with it.
in_tree() {
  [ -n "${TREE:-}" ] || exec "$@"
  # shellcheck disable=SC2016 # the inner shell expands these
  exec unshare --mount --propagation private /bin/sh -c '
    tree=$1; shift
    for d in /tmp /dev /proc; do mount --rbind "$d" "${tree%/}$d" || exit 1; done
    exec chroot "$tree" "$@"' sh "$TREE" "$@"
}

# is_there PROGRAM: whether the tree, or this machine, has it; says so when not.
is_there() {
  if [ -n "${TREE:-}" ]; then
    [ -x "${TREE%/}/usr/sbin/$1" ] || { echo "$1 is not in the tree: set BENCH_TREE to the root folder of a Debian with it"; return 1; }
    [ "$(id -u)" = 0 ] || { echo "a tree can only be entered by root"; return 1; }
  else
    command -v "$1" >/dev/null || { echo "$1 is not installed"; return 1; }
  fi
}
