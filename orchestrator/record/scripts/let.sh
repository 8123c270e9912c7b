# let DIR EPOCH RELEASE: the run lets go of the order.
dir=$1
fenced "$2" && exit 76
find_order "$3" || exit 79
: >"${order%/order}/released" && sync "${order%/order}/released" && sync "${order%/order}" || exit 74
