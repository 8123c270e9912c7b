# arm DIR EPOCH RELEASE SIZE SYSTEMD: the order comes on standard input. start.sh follows.
dir=$1 epoch=$2 release=$3 size=$4 systemd=$5
new=$dir/pending/.new.$$

# abandon CODE: nothing is armed.
abandon() {
  rm -rf "$new"
  exit "$1"
}

# store makes the order: a folder that appears whole, under a name of its own.
store() {
  sync "$new/order" && sync "$new/env" && sync "$new" &&
    mv "$new" "$dir/pending/$release.$epoch.$$" && sync "$dir/pending" && sync "$dir"
}

mkdir -p "$dir/pending" && mkdir "$new" && receive "$new/order" "$size" || abandon 74
# What the commands need of this session's environment, quoted by the shell.
env -i PATH="$PATH" ${HOME+"HOME=$HOME"} ${USER+"USER=$USER"} ${LOGNAME+"LOGNAME=$LOGNAME"} \
  ${XDG_RUNTIME_DIR+"XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR"} ${DOCKER_HOST+"DOCKER_HOST=$DOCKER_HOST"} \
  ${DOCKER_CONFIG+"DOCKER_CONFIG=$DOCKER_CONFIG"} ${CONTAINER_HOST+"CONTAINER_HOST=$CONTAINER_HOST"} \
  sh -c 'export -p' >"$new/env" || abandon 74
fenced "$epoch" && abandon 76

armed=
while find_order "$release"; do
  folder=${order%/order}
  decision=$(readlink "$folder/decision")
  former=${folder%.*}
  if [ "${former##*.}" = "$epoch" ] && [ "$decision" != cancel ]; then
    armed=1
    rm -rf "$new"
    break
  fi
  ln -s cancel "$folder/decision" 2>/dev/null
  [ "$(readlink "$folder/decision")" = stop ] && abandon 78
  discard "$folder"
done
[ "$armed" ] || store || abandon 74
set -- "$dir" login "" "$systemd"
