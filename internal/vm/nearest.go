package vm

// nearEnough is how many letters a word may differ in from what was meant: as far as the CLI looks for commands, too.
const nearEnough = 2

// Nearest is the one of names that was probably meant by word; empty where none is near.
func Nearest(word string, names []string) (near string) {
	best := min(nearEnough, len(word)-1) + 1 // a word of one letter is near nothing
	for _, n := range names {
		if max(len(n)-len(word), len(word)-len(n)) >= best {
			continue // nor can it be nearer
		}
		if d := distance(word, n); d < best {
			best, near = d, n
		}
	}
	return near
}

// distance counts the letters to insert, delete, replace or swap with the next between a and b (optimal string alignment).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			replace := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			rows[i][j] = min(replace, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
