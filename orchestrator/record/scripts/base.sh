# What all scripts share. POSIX sh with coreutils or busybox.
# Exit codes: 71 not started, 74 not written, 76 fenced,
# 78 too late, 79 no such order.
umask 022
LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL PATH

nap() { sleep "$1" 2>/dev/null || sleep 1; }

# replace FILE NEW: after a power cut FILE is whole, the former or the new one.
replace() { sync "$2" && mv -f "$2" "$1" && sync "${1%/*}"; }

# receive FILE SIZE: standard input, which must not have been cut short.
receive() {
  cat >"$1" && [ "$(wc -c <"$1")" -eq "$2" ] && return
  rm -f "$1"
  echo "received less than was sent" >&2
  return 74
}

# fenced EPOCH: somebody else has taken the lock since.
fenced() {
  current=
  [ -e "$dir/epoch" ] && read -r current <"$dir/epoch"
  [ "$current" != "$1" ]
}

# note TEXT: a line of the audit trail of $dir, which is kept below 2 MiB.
note() {
  if [ -e "$dir/audit.log" ] && [ "$(wc -c <"$dir/audit.log")" -gt 1048576 ]; then
    mv -f "$dir/audit.log" "$dir/audit.log.1"
  fi
  printf '%s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$1" >>"$dir/audit.log" && sync "$dir/audit.log"
}
