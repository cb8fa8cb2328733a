// Package crashtest proves that a daemon that is killed anywhere loses and leaks nothing. It puts the real daemon (engine,
// libraries, SQLite, files) over a kernel in memory that is as strict as the real one, ends it at each point that an
// operation passes (package act), begins the next daemon over what is left, and holds the host against the records.
//
// A killed daemon is one whose every goroutine ends at the next point it comes to: what was being done is done, nothing
// after it is, and nothing deferred can act. That is what SIGKILL does, but for what SQLite and single system calls
// leave half-way; the same points are met in real processes elsewhere (BANGER_CRASH_AT).
//
// It has tests, what they stand on, and the form in which all crash tests count (Result); no program may import it.
package crashtest
