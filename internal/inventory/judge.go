package inventory

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"banger/internal/vm"
)

// knowledge is what the objects are judged by. It was read after they were seen: a record is there before its VM's first
// object, so that what was seen and has no record now is an orphan, or has gone meanwhile.
type knowledge struct {
	records []vm.VMRecord
	born    time.Time // the database was; zero when nobody can know
}

// judge gives every object its verdict, in the order of removal.
func judge(objects []Finding, k knowledge) []Finding {
	records := map[vm.ID]vm.VMRecord{}
	for _, r := range k.records {
		records[r.ID] = r
	}
	lost := lostRecords(objects, records, k.born)
	for i := range objects {
		f := &objects[i]
		f.judge(records)
		if f.Status == Orphan && f.VM != "" {
			f.Kept = lost[f.VM]
		}
	}
	slices.SortStableFunc(objects, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return objects
}

func (f *Finding) judge(records map[vm.ID]vm.VMRecord) {
	r, known := records[f.VM]
	var users []string
	for _, id := range f.Users {
		if r, ok := records[id]; ok {
			users = append(users, r.Name)
		}
	}
	switch {
	case f.Busy != "":
		f.Status, f.Why = Owned, f.Busy
		if known {
			f.Owner = r.Name
		}
	case f.Scrap && f.Proof != "":
		f.Status, f.Why = Orphan, "a write to it never ended; it is ours: "+f.Proof
	case f.VM != "" && known && f.Run && atRest(r) && f.Proof != "":
		f.Status, f.stale = Orphan, true
		f.Why = fmt.Sprintf("VM %s is %s, and only a running VM has one", r.Name, r.Runtime.State)
	case f.VM != "" && known:
		f.Status, f.Owner, f.Why = Owned, r.Name, fmt.Sprintf("VM %s is %s", r.Name, r.Runtime.State)
	case len(users) > 0:
		slices.Sort(users)
		f.Status, f.Owner, f.Why = Owned, users[0], "in use by "+Names(users)
	case f.Proof == "":
		f.Status, f.Why = Foreign, f.Doubt
	case f.VM != "":
		f.Status, f.Why = Orphan, fmt.Sprintf("no VM has the id %s; it is ours: %s", f.VM, f.Proof)
	default:
		f.Status, f.Why = Orphan, "nobody needs it; it is ours: "+f.Proof
	}
}

// atRest says that nothing of a run should be there: not while its worker is at it, or waits to try again.
func atRest(r vm.VMRecord) bool {
	s := r.Runtime.State
	return r.Want == vm.WantStopped && (s == vm.StateStopped || s == vm.StateError) && r.Runtime.Attempts == 0
}

// clockSlack is by how much two clocks of one kernel may differ: file systems keep coarse times, processes are dated in
// hundredths of a second since the boot, whose own date moves a little with the clock's corrections.
const clockSlack = 2 * time.Second

// lostRecords finds the VMs without a record that may have had one, in a database that is gone, and says why. Two things tell:
//
// A directory with disks in it. A VM's record is there before them and goes after them, so that no crash leaves them alone: the
// database is an older one, or begun anew. Its file's age does not tell, since one that is restored in place keeps its own.
//
// Anything that was there before the database's file was.
func lostRecords(objects []Finding, records map[vm.ID]vm.VMRecord, born time.Time) map[vm.ID]string {
	lost := map[vm.ID]string{}
	for _, o := range objects {
		if _, known := records[o.VM]; known || o.VM == "" || o.Scrap {
			continue
		}
		switch {
		case o.Holds != "":
			lost[o.VM] = fmt.Sprintf("%s holds %s, and no crash leaves these without a record: the database may be an older one, which never knew this VM; "+
				"banger doctor --leaks --fix --discard %s removes all of it", o.Name, o.Holds, o.VM)
		case lost[o.VM] == "" && !o.Made.IsZero() && !born.IsZero() && o.Made.Add(clockSlack).Before(born):
			lost[o.VM] = fmt.Sprintf("the database is younger (%s) than its %s (%s): it may have lost the VM's record; "+
				"banger doctor --leaks --fix --discard %s removes all of it", date(born), o.Kind, date(o.Made), o.VM)
		}
	}
	return lost
}

func date(t time.Time) string { return t.Local().Format(time.DateTime) }

// Names lists names in a sentence: three at most, and how many more there are.
func Names(names []string) string {
	const most = 3
	if len(names) > most {
		return fmt.Sprintf("%s, %s, %s and %d more", names[0], names[1], names[2], len(names)-most)
	}
	if len(names) == 0 {
		return ""
	}
	s := names[0]
	for i, n := range names[1:] {
		if i == len(names)-2 {
			s += " and " + n
		} else {
			s += ", " + n
		}
	}
	return s
}
