package shop_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/examples/shop"
)

func TestAppFileNamesRegistryAndRepository(t *testing.T) {
	text, err := shop.AppFile("10.46.1.2:5000", "ssh://git@10.46.1.2/srv/git/shop.git")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text, "example.com") {
		t.Errorf("an example's address is left:\n%s", text)
	}
	for _, want := range []string{`"10.46.1.2:5000/shop:${version}"`, `"ssh://git@10.46.1.2/srv/git/shop.git"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the file lacks %s:\n%s", want, text)
		}
	}
}

func TestWriteCodeWritesEveryFile(t *testing.T) {
	dir := t.TempDir()
	if err := shop.WriteCode(dir); err != nil {
		t.Fatal(err)
	}
	want := []string{"assets/order.js", "assets/style.css", "catalogue.tsv", "install.sh", "release", "templates/page.html"}
	if diff := cmp.Diff(want, list(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func TestWriteImageHasAllThatADockerfileCopies(t *testing.T) {
	if _, err := os.Stat("/bin/busybox"); err != nil && os.Getenv("CI") != "true" {
		t.Skip("an image needs busybox: apt-get install busybox-static")
	}
	dir := t.TempDir()
	if err := shop.WriteImage(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"Dockerfile", "busybox", "shop"}, list(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path) // cannot fail: path is below dir
			all = append(all, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}
