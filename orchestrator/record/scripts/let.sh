# let DIR EPOCH RELEASE: the run lets go of the order.
dir=$1
fenced "$2" && exit 76
find_order "$3" || exit 79
folder=${order%/order}
true >"$folder/released" && sync "$folder/released" && sync "$folder" && exit
# A teardown that only waited for this may be through with it already.
! [ -e "$order" ] || exit 74
