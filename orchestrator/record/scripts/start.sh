# start DIR HOW USER SYSTEMD: a process for every order that has none.
# HOW is login: as the login user; says "become" when a unit of systemd
# needs more rights. become: as root, for USER. plain: without systemd.
dir=$1 how=$2 user=$3 systemd=$4
[ "$user" ] || user=$(id -u)

unit() {
  systemd-run --quiet --collect --no-ask-password --uid="$user" \
    --unit="teal-teardown-$(printf %s "${1##*/}" | tr -c 'A-Za-z0-9' -)-$$" \
    --description="teal removes a release that no longer serves" \
    -- /bin/sh "$1/order" "$1" >/dev/null 2>&1 </dev/null
}

launch() {
  if [ "$how" != plain ] && [ -d "$systemd" ] && command -v systemd-run >/dev/null; then
    unit "$1" && return
    if [ "$(id -u)" != 0 ]; then
      echo "become $user"
      return 1
    fi
  fi
  if [ "$(id -u)" != "$user" ]; then # a process of root is not what was asked for
    return 71
  fi
  detach=nohup
  command -v setsid >/dev/null && detach=setsid
  # An inherited descriptor would keep the connection's channel open.
  $detach sh "$1/order" "$1" >/dev/null 2>&1 </dev/null 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
}

# await FOLDER: it works, or has done its work already.
await() {
  tries=0
  until taken "$1/process" || ! [ -e "$1/order" ]; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || return 1
    nap 0.05
  done
}

for order in "$dir"/pending/*/order; do
  [ -e "$order" ] || continue
  folder=${order%/order}
  if [ "$(readlink "$folder/decision")" = cancel ]; then
    discard "$folder"
    continue
  fi
  taken "$folder/process" && continue
  launch "$folder"
  case $? in
  0) ;;
  1) exit 0 ;;
  *) exit 71 ;;
  esac
  if ! await "$folder"; then
    echo "the teardown in $folder did not start" >&2
    exit 71
  fi
done
exit 0
