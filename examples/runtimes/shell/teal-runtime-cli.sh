#!/bin/sh
# A runtime for teal in shell: it drives any engine whose client on the host
# takes docker's arguments. It needs sh and jq where teal runs.
#
#   runtime = "cli"
#   [plugins.cli]
#   path = "/usr/local/lib/teal/plugins/teal-runtime-cli.sh"
#   protocol = "exec"
#   settings = { client = ["sudo", "nerdctl"] }
#
# teal starts the script once for each call, writes a request in one line, and
# answers what the script asks: {"run": […]} is a command on the host,
# {"stream": […]} one with the streams of the call. The last line is a result or
# an error. The whole protocol is in plugins/internal/execruntime/doc.go.
set -u
read -r request

# get FILTER: something of the request, as text.
get() { printf '%s' "$request" | jq -r "$1"; }

fail() { jq -nc --arg kind "$1" --arg message "$2" '{error: {$kind, $message}}'; exit; }

# finish FILTER: the result, made of the last command's output.
finish() { printf '%s' "$answer" | jq -c "{result: (.stdout | $1)}"; exit; }

# ask KIND FILTER: runs the client with the arguments that FILTER makes of the
# request, and reads what came of it. Secrets travel as variables of the client,
# never as arguments.
ask() {
	printf '%s' "$request" | jq -c "((.settings.client // [\"docker\"]) + ($2)) as \$args | {$1: \$args, env: ((.spec // .command // {}).env // {})}"
	read -r answer
	code=$(printf '%s' "$answer" | jq .code)
}

# must: the last command went well, or the call fails with what it said.
must() {
	[ "$code" = 0 ] && return
	said=$(printf '%s' "$answer" | jq -r '.stderr | split("\n") | map(select(. != "" and (test("--help") | not))) | last // "it failed"')
	case $said in
	*"No such "*) fail "not found" "$said" ;;
	*"already in use"*) fail exists "$said" ;;
	*"port is already allocated"* | *"address already in use"*) fail conflict "$said" ;;
	*"does not exist"* | *"executable file not found"* | *"no such file"*) fail invalid "$said" ;;
	*) fail unavailable "$said" ;;
	esac
}

containers='fromjson | sort_by(.Created) | map({
	id: .Id, name: (.Name | ltrimstr("/")), image: .Config.Image, labels: .Config.Labels, pid: .State.Pid,
	exit_code: .State.ExitCode, created: (.Created | sub("[.][0-9]+"; "")), health: (.State.Health.Status // ""),
	status: (.State.Status | if . == "running" or . == "exited" then . else "other" end)})'

case $(get .call) in
describe) echo '{"result":{"calls":["restart","restart-policy","logs","local-commands"],"settings":true}}' ;;
probe)
	ask run '["version", "--format", "{{.Server.Version}}"]'
	must
	finish '{name: "cli", version: rtrimstr("\n")}'
	;;
pull)
	[ "$(get .auth)" = null ] || fail unsupported "it takes no password of a registry: log in with the client on the host"
	ask run '["image", "inspect", .image]'
	case $(get .policy):$code in
	never:*) must ;;
	always:* | missing:[!0]*)
		ask stream '["pull", "--quiet", .image]'
		[ "$code" = 0 ] || fail "not found" "the image cannot be pulled"
		ask run '["image", "inspect", .image]'
		must
		;;
	esac
	# What the registry calls it is the same on all hosts; the id is for one that
	# is in no registry.
	name=$(get '.image | split("@")[0] | sub(":[^/:]*$"; "")')
	printf '%s' "$answer" | jq -c --arg name "$name@" '{result: (.stdout | fromjson[0]
		| [.RepoDigests[]? | select(startswith($name))][0] // .RepoDigests[0]? // .Id | {reference: ., digest: sub(".*@"; "")})}'
	;;
create)
	ask run '["container", "inspect", .spec.name]'
	if [ "$code" = 0 ]; then
		wanted=$(get '.spec.labels | tojson')
		printf '%s' "$answer" | jq -e --argjson wanted "$wanted" '.stdout | fromjson[0].Config.Labels | contains($wanted)' >/dev/null ||
			fail exists "there is another container of that name"
		ask run '["start", .spec.name]'
	else
		ask run '["run", "--detach", "--pull=never", "--name", .spec.name, "--restart", .spec.restart]
			+ [.spec.labels // {} | to_entries[] | "--label", "\(.key)=\(.value)"]
			+ [.spec.env // {} | keys[] | "--env", .]
			+ [.spec.mounts // [] | .[] | "--mount", (if .source | startswith("/") then "type=bind" else "type=volume" end)
				+ ",source=\(.source),target=\(.target)" + (if .read_only then ",readonly" else "" end)]
			+ (if .spec.publish != "" then ["--publish", "\(.spec.publish):\(.spec.port)"] else [] end)
			+ (if .spec.memory > 0 then ["--memory", "\(.spec.memory)"] else [] end)
			+ (if .spec.cpus > 0 then ["--cpus", "\(.spec.cpus)"] else [] end)
			+ (if .spec.stop_grace > 0 then ["--stop-timeout", "\(.spec.stop_grace | ceil)"] else [] end)
			+ [.spec.image] + (.spec.command // [])'
		if [ "$code" != 0 ]; then
			why=$answer
			ask run '["rm", "--force", .spec.name]'
			answer=$why code=1
		fi
	fi
	must
	ask run '["container", "inspect", .spec.name]'
	must
	finish "$containers | .[0]"
	;;
exec)
	ask run '["container", "inspect", .id]'
	must
	ask stream '["exec", "--interactive"] + [.command.env // {} | keys[] | "--env", .] + [.id] + .command.args'
	printf '{"result":{"code":%s}}\n' "$code"
	;;
list)
	ask run '["ps", "--all", "--quiet", "--no-trunc"] + [.labels // {} | to_entries[] | "--filter", "label=\(.key)=\(.value)"]'
	must
	ids=$(printf '%s' "$answer" | jq -c '.stdout | rtrimstr("\n") | split("\n")')
	[ "$ids" != '[]' ] && [ "$ids" != '[""]' ] || { echo '{"result":{}}'; exit; }
	ask run "[\"container\", \"inspect\"] + $ids"
	must
	finish "{containers: ($containers)}"
	;;
stop | restart)
	ask run '[.call, "--time", "\(.grace // 0 | ceil)", .id]'
	case $(get .call):$answer in stop:*"No such container"*) code=0 ;; esac
	must
	echo '{"result":{}}'
	;;
remove)
	ask run '["rm", "--force", "--volumes", .id]'
	case $answer in *"No such container"*) code=0 ;; esac
	must
	echo '{"result":{}}'
	;;
restart-policy)
	# A process that ends is gone before docker knows it; then it asks again.
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		ask run '["update", "--restart", .restart, .id]'
		case $answer in
		*"cannot update a "*) sleep 0.3 ;;
		*) break ;;
		esac
	done
	must
	echo '{"result":{}}'
	;;
logs)
	printf '%s' "$request" | jq -c '{stream: (["sh", "-c", "exec \"$@\" 2>&1", "sh"] + (.settings.client // ["docker"]) + ["logs", "--tail", "\(.lines)", .id])}'
	read -r answer
	code=$(printf '%s' "$answer" | jq .code)
	[ "$code" = 0 ] || fail "not found" "there are no logs"
	echo '{"result":{}}'
	;;
local-commands)
	ask run '["container", "inspect", .id]'
	must
	# The host runs them when nobody is connected: one that is gone is no failure.
	gone='said=$("$@" 2>&1) || case $said in *"No such container"*) ;; *) echo "$said" >&2; exit 1 ;; esac'
	printf '%s' "$request" | jq -c --arg gone "$gone" '(.settings.client // ["docker"]) as $client | (["sh", "-c", $gone, "sh"] + $client) as $unless | {result: {
		pid: ($client + ["container", "inspect", "--format", "{{.State.Pid}}", .id]),
		stop: ($unless + ["stop", "--time", "\(.grace // 0 | ceil)", .id]),
		remove: ($unless + ["rm", "--volumes", .id])}}'
	;;
*) fail unsupported "this runtime cannot do that" ;;
esac
