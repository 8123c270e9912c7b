# lock DIR SILENCE OWNER: holds the lock while bytes come in, and sends each back.
dir=$1 silence=$2 owner=$3
mkdir -p "$dir" 2>/dev/null
if ! [ -w "$dir" ] || { [ -e "$dir/lock" ] && ! [ -w "$dir/lock" ]; }; then
  echo "denied $(id -u) $(id -g) $(id -un)"
  exit 0
fi
for tool in timeout dd sync readlink; do
  command -v "$tool" >/dev/null || { echo "lacks $tool"; exit 0; }
done

# Ends the sshd process of this connection, and with it every command that the
# silent one may still have here. The lock stays until they had time to end.
fence() {
  trap '' TERM HUP
  process=$$
  while [ "$process" -gt 1 ]; do
    name= parent=0
    while read -r key value; do
      case $key in
      Name:) name=$value ;;
      PPid:) parent=$value && break ;;
      esac
    done <"/proc/$process/status"
    case $name in
    sshd | sshd-session | dropbear)
      kill "$process"
      nap 2
      return
      ;;
    esac
    process=$parent
  done
}

hold() {
  rm -rf "$dir/owner.json" "$dir"/.new.* "$dir"/pending/.new.* "$dir"/pending/.gone.*
  epoch=0
  [ -e "$dir/epoch" ] && read -r epoch <"$dir/epoch"
  case $epoch in
  '' | *[!0-9]*)
    echo damaged
    return
    ;;
  esac
  epoch=$((epoch + 1))
  new=$dir/.new.$$
  echo "$epoch" >"$new" && replace "$dir/epoch" "$new" || return 74
  printf '%s\n' "$owner" >"$new" && replace "$dir/owner.json" "$new" || return 74
  echo "locked $epoch"
  while beat=$(exec timeout "$silence" dd bs=1 count=1 2>/dev/null); do
    [ "$beat" ] || return 0 # closed: an orderly release
    echo .
  done
  fence
  return 1
}

if take "$dir/lock"; then
  hold 9>&-
  exit
fi
tries=0
until [ -e "$dir/owner.json" ] || [ $tries -ge 10 ]; do
  tries=$((tries + 1))
  nap 0.1
done
echo "held $(cat "$dir/owner.json" 2>/dev/null)"
