# The end of every order file, run as: sh ORDER FOLDER. The file sets epoch,
# delay, max and orphaned (hundredths of a second), condemned, successor and
# port_KEY, and has the functions routed and run. FOLDER is the current folder
# from here on: once it is moved away nothing here can touch another order.
folder=$1
dir=${folder%/*/*}
. "$folder/env"
cd "$folder" || exit
take process || exit 0
read -r boot </proc/sys/kernel/random/boot_id
zero=0 pause=0.5 slow='' calm='' rounds=0 alone='' said='' counted='' waits=''

# Hundredths of a second since boot: a clock that no one sets.
tell_time() {
  read -r up _ </proc/uptime
  now=${up%.*}${up#*.}
}

say() {
  [ "$1" = "$said" ] && return
  said=$1
  printf '%s\n' "$said" >.waits && mv -f .waits waits
}

# rest: half a second; a whole one while $calm says that nothing is to be done
# soon; longer and longer while $slow says that asking costs much.
rest() {
  case $slow$pause in
  10.5) pause=1 ;;
  1[124]) pause=$((pause * 2)) ;;
  18) ;;
  *) pause=0.5 ;;
  esac
  if [ "$calm" ] && ! [ "$slow" ]; then nap 1; else nap "$pause"; fi
}

wanted() {
  [ -e order ] || return 1
  ! [ -h decision ] || [ "$(readlink decision)" = stop ]
}

# held: the run that armed the order is alive and has not let go of it.
held() {
  [ -e released ] && return 1
  ! fenced "$epoch" && taken "$dir/lock"
}

# Since the switch there may have been a reboot: then only the wall clock knows.
resume() {
  read -r wall since era <switched
  [ "$era" = "$boot" ] && return
  past=$(($(date +%s) - wall))
  [ $past -gt 0 ] || past=0
  since=$((now - past * 100))
}

switched() {
  since=$now
  echo "$(date +%s) $now $boot" >.switched && replace ./switched .switched
}

# still_routed: no switch yet, or it was taken back. When no run is left that
# could switch, there is nothing to remove.
still_routed() {
  waits='the proxy routes to it'
  zero=0
  if [ -e switched ]; then rm -f switched; fi
  if held; then
    alone=
    [ $((now - begun)) -lt 1000 ] || calm=1 # a run that has shares to watch
    return
  fi
  alone=${alone:-$now}
  [ $((now - alone)) -ge "$orphaned" ] || return
  ln -s cancel decision 2>/dev/null || return
  note "$release: the switch away from it did not happen, it is not removed"
  discard "$folder"
}

# first KEY: $pid of the container's first process, 0 when it does not run. The
# runtime is asked again when that process is gone. Fails when it is unknown.
first() {
  eval "pid=\${pid_$1:-0} born=\${born_$1:-}"
  [ "$pid" != 0 ] && [ "$(birth "$pid")" = "$born" ] && return
  pid=$(run "pid_$1" 2>/dev/null) || pid=unknown
  case $pid in
  '') pid=0 ;;
  *[!0-9]*) return 1 ;;
  esac
  born=$(birth "$pid")
  eval "pid_$1=\$pid born_$1=\$born"
}

# connections PID PORT: adds to $total; fails when they cannot be counted. One
# that is only half made (03) does not count: while anybody waits to be accepted
# there are whole ones too, and one whose end was lost on the way, such as that
# of a health check, stays for a minute.
connections() {
  lines=$(sed -n "1s/.*/+/p
/^ *[0-9]*: [0-9A-F]*:$2 [0-9A-F]*:[0-9A-F]* 0[1458] /s/.*/./p" "/proc/$1/net/tcp" "/proc/$1/net/tcp6" 2>/dev/null)
  case $lines in
  +*) ;;
  *) return 1 ;;
  esac
  set -- $lines
  total=$((total + $# - 1))
}

# count: $zero is how often in a row there was no connection.
count() {
  total=0 ports=
  for key in $condemned; do
    eval "port=\${port_$key:-}"
    [ "$port" ] || continue
    ports=1
    if ! first "$key"; then
      total=-1
    elif [ "$pid" != 0 ]; then
      connections "$pid" "$port" || total=-1
    fi
    [ $total -ge 0 ] || break
  done
  if ! [ "$ports" ]; then
    total=-1 zero=3
  elif [ $total = 0 ]; then
    zero=$((zero + 1))
  else
    zero=0
  fi
  [ "$total" = "$counted" ] && return
  counted=$total
  echo "$total" >.count && mv -f .count count
}

# unused: nobody decides by the number of connections before the delay is about
# to end. Until then it is only told, and so not asked for every time.
unused() {
  passed=$((now - since))
  if held; then
    waits='the run has not let go of it'
    calm=1
  elif [ $passed -lt "$delay" ]; then
    waits='the delay is not over'
    [ $((passed + 200)) -ge "$delay" ] || calm=1
  else
    waits=
  fi
  if [ "$calm" ]; then
    zero=0
    rounds=$(((rounds + 1) % 5))
    [ $rounds = 1 ] || return 1
  fi
  count
  [ "$waits" ] && return 1
  if [ $zero -lt 3 ] && [ $passed -lt "$max" ]; then
    waits='connections to it are open'
    [ $total -ge 0 ] || waits='its connections cannot be counted'
  else
    return 0
  fi
  return 1
}

# ready: it may be removed now; else $waits says why not. A decision that was
# made before this process began is not thought over, but the checks are.
ready() {
  routed >/dev/null 2>&1
  case $? in
  0)
    still_routed
    return 1
    ;;
  1) alone= ;;
  *)
    waits='it is not known whether the proxy routes to it'
    slow=1
    return 1
    ;;
  esac
  [ -e switched ] || switched || return 1
  [ -h decision ] || unused || return 1
  for key in $successor; do
    pid=$(run "pid_$key" 2>/dev/null) || pid=
    case $pid in
    '' | 0 | *[!0-9]*)
      waits='a container of the release after it does not run'
      slow=1
      return 1
      ;;
    esac
  done
}

# remove: all containers at once, each with its own grace.
remove() {
  : >output
  pids=
  for key in $condemned; do
    run "stop_$key" >>output 2>&1 &
    pids="$pids $!"
  done
  failed=
  for pid in $pids; do wait "$pid" || failed=1; done
  [ "$failed" ] && return 1
  for key in $condemned; do run "remove_$key" >>output 2>&1 || failed=1; done
  ! [ "$failed" ]
}

carry_out() {
  ln -s stop decision 2>/dev/null || [ "$(readlink decision)" = stop ] || return
  sync .
  if remove; then
    note "$release: removed"
    discard "$folder"
  else
    waits="it could not be removed: $(tail -n 1 output)"
    slow=1
  fi
}

work() {
  tell_time
  begun=$now
  if [ -e switched ]; then resume; fi
  while wanted; do
    tell_time
    slow='' calm=''
    if ready; then carry_out; fi
    say "$waits"
    rest
  done
}

work 9>&- 2>/dev/null
