# The folders of teardown orders below $dir/pending.

# discard FOLDER: an order that nobody will carry out any more. A process that
# still writes there may leave something of it for the next owner of the lock.
discard() {
  gone=${1%/*}/.gone.$$
  mv "$1" "$gone" 2>/dev/null || ! [ -e "$1" ] || return
  sync "${1%/*}" || return
  rm -rf "$gone" 2>/dev/null
  return 0
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
