# observe ROOT APP SYSTEMD: lines of "key value", see observe.go.
root=$1 dir=$1/$2
echo "now $(date +%s)"
echo "user $(id -un)"
echo "uid $(id -u)"
read -r boot </proc/sys/kernel/random/boot_id && echo "boot $boot"
[ -d "$3" ] && echo systemd
[ "${SSH_CONNECTION:-}" ] && echo "reached $SSH_CONNECTION"
sed 's/^/range /' /proc/sys/net/ipv4/ip_local_port_range # not by read, which reads bytes: this file has one
sed -n 's/^ *[0-9]*: \([0-9A-F]*:[0-9A-F]*\) [0-9A-F]*:[0-9A-F]* 0A .*/listen \1/p' /proc/net/tcp /proc/net/tcp6 2>/dev/null
for tool in flock timeout dd sync setsid systemd-run sudo nginx haproxy docker podman git curl tar; do
  if command -v "$tool" >/dev/null; then
    printf 'tool %s ' "$tool"
    command -v "$tool"
  fi
done
near=$dir
until [ -e "$near" ]; do
  near=${near%/*}
  near=${near:-/}
done
[ -d "$near" ] && [ -w "$near" ] && echo writable

if [ -e "$dir/epoch" ]; then sed 's/^/epoch /' "$dir/epoch"; fi
if taken "$dir/lock"; then
  echo held
  sed 's/^/owner /' "$dir/owner.json" 2>/dev/null
fi
if [ -e "$dir/state.json" ]; then sed 's/^/state /' "$dir/state.json"; fi
for state in "$root"/*/state.json; do
  if [ -e "$state" ] && [ "$state" != "$dir/state.json" ]; then
    echo another
    sed 's/^/other /' "$state"
  fi
done
for order in "$dir"/pending/*/order; do
  [ -e "$order" ] || continue
  folder=${order%/order}
  decision=
  [ -h "$folder/decision" ] && decision=$(readlink "$folder/decision")
  [ "$decision" = cancel ] && continue
  sed -n '1s/^#/pending /p' "$order" 2>/dev/null || continue # it is through
  [ "$decision" = stop ] && echo stopping
  [ -e "$folder/released" ] && echo released
  taken "$folder/process" && echo running
  for fact in switched count waits; do
    if [ -e "$folder/$fact" ]; then sed "s/^/$fact /" "$folder/$fact"; fi
  done
done
exit 0
