# append DIR EPOCH SIZE KEEP: a line more in the history, which keeps the last ones.
dir=$1 epoch=$2 size=$3 keep=$4
line=$dir/.new.$$.line new=$dir/.new.$$
receive "$line" "$size" || exit
if [ -e "$dir/history.jsonl" ]; then tail -n $((keep - 1)) "$dir/history.jsonl"; fi | cat - "$line" >"$new" || exit 74
rm -f "$line"
if fenced "$epoch"; then
  rm -f "$new"
  exit 76
fi
replace "$dir/history.jsonl" "$new" || exit 74
