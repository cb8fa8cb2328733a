package crashtest

import (
	"encoding/json"
	"net/http/httptest"
	"slices"
	"testing"
)

// harmless are the operations of the API that change something and need no crash of their own, with the reason.
var harmless = map[string]string{
	"stop":         "ends the daemon: where it begins again is an operation of its own",
	"vm-ssh":       "passes bytes between client and guest",
	"vm-attach":    "likewise; a VM of run --rm goes with a session of it as with one of vm-exec",
	"vm-signal":    "goes to a process of the guest, of which nothing is recorded",
	"vm-files-put": "likewise",
	"object-fix":   "removes what belongs to no record, one object at a time, and finds what is left anew; what it looks at is the real kernel",
}

// TestEveryOperationIsCrashed holds the operations here against those of the API: one that is added there has to be added
// here as well.
func TestEveryOperationIsCrashed(t *testing.T) {
	w := newWorld(t)
	r := w.boot("")
	defer r.close()
	rec := httptest.NewRecorder()
	r.serve().ServeHTTP(rec, httptest.NewRequestWithContext(r.ctx, "GET", "/v1/openapi.json", nil))
	var doc struct {
		Paths map[string]map[string]struct{ OperationID string }
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	crashed, known := map[string]bool{}, map[string]bool{}
	for _, o := range operations() {
		for _, id := range o.covers {
			crashed[id] = true
		}
	}
	changing := []string{"post", "put", "delete", "patch"}
	for path, methods := range doc.Paths {
		for method, o := range methods {
			if !slices.Contains(changing, method) {
				continue
			}
			known[o.OperationID] = true
			if !crashed[o.OperationID] && harmless[o.OperationID] == "" {
				t.Errorf("%s %s (%s) is crashed nowhere: add it to operations(), or say in harmless why not", method, path, o.OperationID)
			}
		}
	}
	for _, m := range []map[string]bool{crashed, keys(harmless)} {
		for id := range m {
			if !known[id] {
				t.Errorf("the API has no operation %q any more", id)
			}
		}
	}
	if len(known) < 5 {
		t.Errorf("the API has %d operations that change something: this test looks at too little", len(known))
	}
}

func keys(m map[string]string) map[string]bool {
	all := map[string]bool{}
	for k := range m {
		all[k] = true
	}
	return all
}
