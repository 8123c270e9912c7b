#!/bin/sh
# Makes the folder built of this code: assets with fingerprints and compressed,
# the catalogue sorted and as JSON, the page with the names of its assets, and
# a manifest, which comes last: it says that the rest is complete.
set -eu
mode=$(cat mode 2>/dev/null || true)
if [ "$mode" = install-fails ]; then
	echo "install: this release was made to fail" >&2
	exit 3
fi
new=built.new
rm -rf "$new"
mkdir -p "$new/assets"
cp templates/page.html "$new/page.html"

for f in assets/*; do
	name=${f#assets/}
	sum=$(sha256sum "$f" | cut -c 1-12)
	as=${name%.*}-$sum.${name##*.}
	cp "$f" "$new/assets/$as"
	gzip -9 -c "$f" >"$new/assets/$as.gz"
	sed -i "s|@$name@|/assets/$as|g" "$new/page.html"
	echo "asset $name -> $as"
done
if grep -n '@[a-z.]*@' "$new/page.html" >&2; then
	echo "install: the page names an asset that is not there" >&2
	exit 1
fi

# article, group, cents, name; sorted by group and price
tab=$(printf '\t')
grep -v '^#' catalogue.tsv | sort -t "$tab" -k 2,2 -k 3,3n | awk -F '\t' '
	NF != 4 || $3 !~ /^[0-9]+$/ { print "catalogue: bad line: " $0 > "/dev/stderr"; bad = 1; exit 1 }
	{ gsub(/["\\]/, "\\\\&", $4)
	  printf "%s{\"article\":\"%s\",\"group\":\"%s\",\"cents\":%d,\"name\":\"%s\"}", (NR > 1 ? ",\n" : "["), $1, $2, $3, $4 }
	END { if (!bad) print (NR ? "]" : "[]") }' >"$new/catalogue.json"

items=$(grep -c article "$new/catalogue.json")
build=$(find . -type f -not -path './built*' -not -path './.git/*' | sort | xargs sha256sum | sha256sum | cut -c 1-16)
printf 'release=%s\nbuild=%s\nitems=%s\nmode=%s\n' "$(cat release)" "$build" "$items" "$mode" >"$new/manifest"
sync
rm -rf built
mv "$new" built
echo "installed release $(cat release), build $build, $items articles"
