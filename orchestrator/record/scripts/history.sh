# history DIR COUNT: the last lines.
if [ -e "$1/history.jsonl" ]; then tail -n "$2" "$1/history.jsonl"; fi
