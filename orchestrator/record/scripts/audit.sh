# audit DIR EPOCH TEXT
dir=$1
fenced "$2" && exit 76
note "$3" || exit 74
