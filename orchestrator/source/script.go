package source

// The scripts that run on a host, or here. They are POSIX shell, constant, and
// take everything that varies as arguments. Exit codes above 100 are answers
// that the caller understands.
const (
	exitNoGit    = 120
	exitCorrupt  = 121
	exitExists   = 122
	exitMismatch = 123
	exitNoSubdir = 124
	exitNoCommit = 125
)

// prelude makes git quiet, deaf to the surroundings and speaking English.
const prelude = `set -u
export LC_ALL=C GIT_TERMINAL_PROMPT=0 GIT_ASKPASS=false SSH_ASKPASS_REQUIRE=never GIT_LITERAL_PATHSPECS=1
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_COMMON_DIR GIT_NAMESPACE
known=$(cat)
command -v git >/dev/null || exit 120
trap 'exit 143' HUP INT TERM PIPE
`

// login tells git how to use ssh. It needs known, the lines of known_hosts,
// and for them tmp, a private folder that is removed at the end; it goes there,
// because ssh cannot be told every path. Its arguments are key files. Without
// lines the known_hosts files of where it runs decide.
const login = `login() {
  ssh=${GIT_SSH_COMMAND:-$(git config --get core.sshCommand || echo ssh)}
  ssh=$ssh' -v -o BatchMode=yes -o StrictHostKeyChecking=yes -o UpdateHostKeys=no'
  ssh=$ssh' -o ConnectTimeout=15 -o ServerAliveInterval=5 -o ServerAliveCountMax=3'
  if [ -n "$known" ]; then
    cd "$tmp" && printf '%s\n' "$known" >known_hosts || exit
    ssh=$ssh' -o UserKnownHostsFile=known_hosts -o GlobalKnownHostsFile=/dev/null'
  fi
  n=0
  for key; do
    n=$((n+1))
    export "TEAL_IDENTITY_$n=$key"
    ssh=$ssh' -o IdentitiesOnly=yes -i "$TEAL_IDENTITY_'$n'"'
  done
  export GIT_SSH_COMMAND="$ssh"
}
`

// listScript prints what the server knows of a ref:
// repository ref keys…
// An empty ref prints all branches and tags.
const listScript = prelude + login + `repository=$1 ref=$2; shift 2
if [ -n "$known" ]; then
  tmp=$(umask 077; mktemp -d "${TMPDIR:-/tmp}/teal.XXXXXX") || exit
  trap 'rm -rf "$tmp"' EXIT
fi
login "$@"
set -- -c http.lowSpeedLimit=1000 -c http.lowSpeedTime=30 ls-remote
if [ -n "$ref" ]
then git "$@" -- "$repository" "$ref" "refs/heads/$ref" "refs/tags/$ref" "refs/tags/$ref^{}" "$ref^{}"
else git "$@" --heads --tags -- "$repository"
fi
`

// complete ends the script when the folder of a release is whole already.
const complete = `if [ -n "$folder" ] && [ -f "$folder/code.complete" ]; then
  [ "$(cat "$folder/code.complete")" = "$stamp" ] || exit 122
  echo complete
  exit 0
fi
`

// checkScript asks only that: folder stamp
const checkScript = `set -u
folder=$1 stamp=$2
` + complete

// fetchScript brings a commit into a mirror and prints the commit object:
// folder stamp mirror repository commit ref keys…
// It asks for the commit alone, then for the ref's end, then for everything:
// older git servers refuse the first, dumb ones the second. A damaged mirror
// is made anew, once.
const fetchScript = prelude + login + `folder=$1 stamp=$2 mirror=$3 repository=$4 commit=$5 ref=$6; shift 6
` + complete + `umask 077
tmp=$mirror.tmp
rm -rf "$tmp"
mkdir -p "$tmp" || exit
trap 'rm -rf "$tmp"' EXIT
login "$@"
format=
[ "${#commit}" = 40 ] || format=--object-format=sha256
create() {
  [ -f "$mirror/info/attributes" ] && return
  rm -rf "$mirror" "$mirror.new"
  git init -q --bare --template= $format "$mirror.new" && mkdir -p "$mirror.new/info" &&
    echo '* -export-ignore -export-subst' >"$mirror.new/info/attributes" && mv "$mirror.new" "$mirror"
}
has() { git --git-dir="$mirror" cat-file -e "$commit^{tree}" 2>/dev/null; }
get() {
  absent=
  git --git-dir="$mirror" -c gc.auto=0 -c maintenance.auto=false -c http.lowSpeedLimit=1000 -c http.lowSpeedTime=30 \
    fetch -q --no-tags --no-recurse-submodules "$@" 2>"$tmp/err" || return
  has || { absent=1; return 1; }
}
refused() { [ "$absent" ] || grep -q -i -e 'unadvertised object' -e 'not our ref' -e 'shallow' -e 'remote ref' "$tmp/err"; }
all() {
  unshallow=
  [ -f "$mirror/shallow" ] && unshallow=--unshallow
  get $unshallow -- "$repository" '+refs/heads/*:refs/teal/heads/*' '+refs/tags/*:refs/teal/tags/*'
}
bring() {
  rm -f "$mirror"/*.lock "$mirror"/refs/teal/*.lock
  has && return
  get --depth=1 -- "$repository" "+$commit:refs/teal/head" && return
  refused || return
  if [ -n "$ref" ]; then
    get --depth=1 -- "$repository" "+$ref:refs/teal/head" && return
    refused || return
  fi
  all
}
damaged() { grep -q -i -e 'corrupt' -e 'bad object' -e 'unable to read' -e 'missing' -e 'invalid' -e 'not a git repository: ' "$tmp/err"; }
create || exit
: >"$tmp/err"
bring || { damaged && rm -rf "$mirror" && create && bring; } || {
  refused && exit 125
  cat "$tmp/err" >&2
  exit 128
}
git --git-dir="$mirror" -c gc.autoDetach=false -c gc.autoPackLimit=20 gc --auto -q 2>/dev/null
git --git-dir="$mirror" cat-file commit "$commit"
`

// modulesScript prints the submodules of a commit: mirror commit
const modulesScript = prelude + `git --git-dir="$1" ls-tree -r -z "$2" && printf '\0' &&
git --git-dir="$1" config --blob "$2:.gitmodules" -z --list
`

// finish makes a written folder the release's code.
const finish = `sync -f "$new" 2>/dev/null || sync
rm -rf "$folder/code" && mv "$new" "$folder/code" && printf '%s\n' "$stamp" >"$folder/code.complete.new" || exit
sync -f "$folder" 2>/dev/null || sync
mv "$folder/code.complete.new" "$folder/code.complete" || exit
sync -f "$folder" 2>/dev/null || sync
`

// writeScript writes a release's folder from mirrors:
// folder stamp subdir, then for each repository: mirror commit prefix
// The subdir is of the first repository.
const writeScript = prelude + `umask 022
folder=$1 stamp=$2 subdir=$3; shift 3
all=$folder/code.all new=$folder/code.new
rm -rf "$all" "$all.failed" "$new"
mkdir -p "$all" || exit
if [ -n "$subdir" ] && [ "$(git --git-dir="$1" cat-file -t "$2:$subdir" 2>/dev/null)" != tree ]; then
  rm -rf "$all"
  exit 124
fi
only=$subdir
while [ $# -gt 0 ]; do
  mkdir -p "$all/$3" || exit
  { git --git-dir="$1" -c tar.umask=0022 archive --format=tar "$2" ${only:+"$only"} || : >"$all.failed"; } |
    tar -xf - -C "$all/$3" && [ ! -e "$all.failed" ] || {
    rm -rf "$all" "$all.failed"
    exit 121
  }
  only=
  shift 3
done
mv "$all${subdir:+/$subdir}" "$new" && rm -rf "$all" || exit
` + finish

// receiveScript writes a release's folder from a compressed archive on
// standard input: folder stamp sha256
const receiveScript = `set -u
umask 077
folder=$1 stamp=$2 sum=$3
new=$folder/code.new archive=$folder/code.tar.gz
mkdir -p "$folder" || exit
trap 'rm -f "$archive"' EXIT
trap 'exit 143' HUP INT TERM PIPE
cat >"$archive" || exit
[ "$(sha256sum <"$archive" | cut -d ' ' -f 1)" = "$sum" ] || exit 123
umask 022
rm -rf "$new"
mkdir -p "$new" && tar -xzf "$archive" -C "$new" || exit
` + finish

// pruneScript removes release folders: dir, then the ids that stay
const pruneScript = `set -u
cd "$1/releases" 2>/dev/null || exit 0
shift
for release in *; do
  [ -d "$release" ] && [ ! -L "$release" ] || continue
  for id; do [ "$id" != "$release" ] || continue 2; done
  mv -- "$release" ".$release.gone" && rm -rf -- ".$release.gone" || exit
done
rm -rf -- .*.gone
`
