# setup ROOT APP UID GID: makes what is not there, for the login user.
for folder in "$1" "$1/$2"; do
  [ -d "$folder" ] && continue
  mkdir -p "$folder" && chmod 755 "$folder" && chown "$3:$4" "$folder" || exit
done
