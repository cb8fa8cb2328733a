package image

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"banger/internal/vm"
)

// What keeps an ordinary user from building is said with the command that helps, before anything is downloaded.
func TestExplainNamespace(t *testing.T) {
	failed := errors.New("exit status 1")
	const ids = "al:100000:65536\nkim:165536:65536\n"
	for _, c := range []struct {
		what, name string
		files      map[string]string
		trial      error
		text, hint string // empty: nothing keeps it
	}{
		{"all there", "kim", map[string]string{"etc/subuid": ids, "etc/subgid": ids}, nil, "", ""},
		{"switches that hinder nobody", "kim", map[string]string{"etc/subuid": ids, "etc/subgid": ids, "proc/sys/kernel/unprivileged_userns_clone": "0\n"}, nil, "", ""},
		{"no name", "", nil, failed, "user 1001 has no name", "as root: useradd -u 1001 NAME"},
		{"no files", "kim", nil, failed, "kim has no ids", "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 kim"},
		{"another's", "sam", map[string]string{"etc/subuid": "# none\n" + ids, "etc/subgid": ids}, failed, "sam has no ids", "as root: usermod --add-subuids 231072-296607 --add-subgids 231072-296607 sam"},
		{"no groups", "kim", map[string]string{"etc/subuid": ids, "etc/subgid": "kim:x:1\nkim:1:0\n"}, failed, "kim has no ids", "as root: usermod --add-subgids 100000-165535 kim"},
		{"by number, which mmdebstrap passes over", "kim", map[string]string{"etc/subuid": "1001:100000:65536\n", "etc/subgid": ids}, nil, "kim has no ids", "as root: usermod --add-subuids 165536-231071 kim"},
		{"too few", "kim", map[string]string{"etc/subuid": "kim:100000:1000\nkim:200000:65536\n", "etc/subgid": ids}, nil, "first line of kim in /etc/subuid grants 1000 ids", "as root: put kim:265536:65536 there instead"},
		{"none allowed", "kim", map[string]string{"proc/sys/user/max_user_namespaces": "0\n"}, failed, "user.max_user_namespaces is 0", "as root: sysctl -w user.max_user_namespaces=10000"},
		{"Debian's switch", "kim", map[string]string{"proc/sys/kernel/unprivileged_userns_clone": "0\n"}, failed, "unprivileged_userns_clone is 0", "sysctl -w kernel.unprivileged_userns_clone=1"},
		{"Ubuntu's switch", "kim", map[string]string{"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}, failed, "apparmor_restrict", "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
		{"something else", "kim", map[string]string{"etc/subuid": ids, "etc/subgid": ids}, failed, "run unshare --user --map-root-user --map-auto -- true: exit status 1: newuidmap: no", "set-user-id root"},
	} {
		host := fstest.MapFS{}
		for name, text := range c.files {
			host[name] = &fstest.MapFile{Data: []byte(text)}
		}
		err := explainNamespace(host, c.name, 1001, c.trial, "newuidmap: no")
		if c.text == "" {
			if err != nil {
				t.Errorf("%s: %v", c.what, err)
			}
			continue
		}
		if err == nil || vm.CodeOf(err) != vm.CodeMissing || !strings.Contains(err.Error(), c.text) || !strings.Contains(vm.HintOf(err), c.hint) {
			t.Errorf("%s: %v; hint %s", c.what, err, vm.HintOf(err))
		}
	}
}
