# What the scripts share. POSIX sh with coreutils or busybox; flock where it is.
# Exit codes: 70 damaged, 71 not started, 74 not written, 76 fenced,
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

# discard FOLDER: an order that nobody will carry out any more.
discard() {
  gone=${1%/*}/.gone.$$
  mv "$1" "$gone" 2>/dev/null && sync "${1%/*}"
  rm -rf "$gone"
}

# find_order RELEASE: $order is its folder. A folder's name is
# RELEASE.EPOCH.NUMBER and is never used again.
find_order() {
  for order in "$dir/pending/$1".*; do
    name=${order%.*}
    name=${name%.*}
    [ "$name" = "$dir/pending/$1" ] && [ -e "$order/order" ] && return
  done
  return 1
}

# birth PID: when the process was born, in ticks since boot; nothing for a dead one.
birth() {
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  set -- ${stat##*) }
  [ "$1" = Z ] || echo "${20}"
}

# A lock lives as long as the shell that took it. Without flock it is a
# symbolic link BASE.N to the taker's pid:birth:boot: made by one system call,
# never broken, only followed by N+1 when the taker is dead.
newest() {
  generation=0
  for link in "$1".*; do
    number=${link##*.}
    case $number in
    '' | *[!0-9]*) ;;
    *) [ "$number" -gt "$generation" ] && generation=$number ;;
    esac
  done
}

lives() {
  [ "$generation" != 0 ] || return 1
  taker=$(readlink "$1.$generation") || return 1
  read -r boot </proc/sys/kernel/random/boot_id
  born=${taker#*:}
  [ "${born#*:}" = "$boot" ] && [ "$(birth "${taker%%:*}")" = "${born%%:*}" ]
}

# take BASE: fails when somebody else has it. With flock, descriptor 9 must
# not go to children: they would keep the lock of a dead shell.
take() {
  if command -v flock >/dev/null; then
    exec 9>>"$1"
    tries=0
    until flock -n 9; do # a look at the lock takes it for a moment
      tries=$((tries + 1))
      [ $tries -lt 6 ] || return 1
      nap 0.05
    done
    return 0
  fi
  newest "$1"
  lives "$1" && return 1
  read -r boot </proc/sys/kernel/random/boot_id
  mine=$((generation + 1))
  ln -s "$$:$(birth $$):$boot" "$1.$mine" 2>/dev/null || return 1
  newest "$1"
  if [ "$generation" != "$mine" ]; then # what was read was outdated
    rm -f "$1.$mine"
    return 1
  fi
  for link in "$1".*; do
    case ${link##*.} in
    "$mine" | *[!0-9]*) ;;
    *) rm -f "$link" ;;
    esac
  done
}

# taken BASE: somebody has the lock. Changes nothing.
taken() {
  if command -v flock >/dev/null; then
    [ -e "$1" ] || return 1
    flock -n -s 9 9<"$1"
    [ $? = 1 ]
  else
    newest "$1"
    lives "$1"
  fi
}
