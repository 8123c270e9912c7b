# Locks that vanish with the shell that took them; with flock where it is.

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
