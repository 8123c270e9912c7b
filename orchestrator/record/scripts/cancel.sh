# cancel DIR EPOCH RELEASE: of this script and the teardown, exactly one makes
# the symbolic link that is the decision.
dir=$1
fenced "$2" && exit 76
find_order "$3" || exit 79
folder=${order%/order}
ln -s cancel "$folder/decision" 2>/dev/null
case $(readlink "$folder/decision") in
cancel) sync "$folder" && discard "$folder" || exit 74 ;;
stop) exit 78 ;;
*) [ -e "$order" ] && exit 74 || exit 79 ;;
esac
