# write DIR EPOCH FILE SIZE: standard input takes the place of FILE.
dir=$1 epoch=$2 file=$3 size=$4
new=$dir/.new.$$
receive "$new" "$size" || exit
if fenced "$epoch"; then
  rm -f "$new"
  exit 76
fi
replace "$dir/$file" "$new" || exit 74
