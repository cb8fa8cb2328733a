// Package archtest holds tests of the code's own shape: which package may know which, and how the source looks. Each
// rule says why it is there; a rule that stands in the way is changed together with docs/ARCHITECTURE.md, not evaded.
//
// It has no code but tests. .golangci.yml repeats the bans on direct imports, so that editors show them.
package archtest
