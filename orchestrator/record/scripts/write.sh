# write DIR EPOCH SIZE SLOT: standard input takes the place of the state; SLOT
# serves, or none does. A state that says who serves is never ahead of the file
# that says it to teardowns.
dir=$1 epoch=$2 size=$3 slot=$4
new=$dir/.new.$$
receive "$new" "$size" || exit
if fenced "$epoch"; then
  rm -f "$new"
  exit 76
fi

# serve SLOT: the file that says so, which is left alone while it is right.
serve() {
  if ! [ "$1" ]; then
    [ -e "$dir/serves" ] || return 0
    rm -f "$dir/serves" && sync "$dir"
    return
  fi
  served=
  [ -e "$dir/serves" ] && read -r served <"$dir/serves"
  [ "$served" = "$1" ] && return
  echo "$1" >"$new.serves" && replace "$dir/serves" "$new.serves"
}

serve "$slot" && replace "$dir/state.json" "$new" || exit 74
