package main

import (
	"slices"

	"github.com/anishathalye/porcupine"
)

// What docs/api.md says of one key of a map: it holds a value or nothing. A change has a revision, larger than that of every
// change before it, and says which revision was there, 0 for none. One whose condition does not hold is refused, and changes
// nothing. A read says what is there, and at which revision it was written.
//
// This knows nothing of how the checker in Rust goes about it. There a revision that nobody was told of is a lower bound;
// here it is each number that it could be, one state for each, and an answer that speaks of it ends the states it denies.

// asked is what a client asked for.
type asked struct {
	call      string // "read", "write" or "delete"; "end" is after all that was answered
	value     uint64
	ifAbsent  bool
	ifAt      *uint64 // only if what is there was written at this revision
	isUnknown bool    // nobody knows what came of it
}

// told is what the client was told.
type told struct {
	answer             string // "holds", "nothing", "changed" or "refused"
	held               uint64
	revision, previous uint64
}

// state is of the register. What it holds was written at the revision of the last change.
type state struct {
	holds   bool
	value   uint64
	changed uint64 // revision of the last change
	ended   bool   // everything that was answered has happened
}

// at is the revision of what is there, 0 for nothing.
func (s state) at() uint64 {
	if s.holds {
		return s.changed
	}
	return 0
}

func (s state) meets(a asked) bool {
	switch {
	case a.ifAbsent:
		return !s.holds
	case a.ifAt != nil:
		return s.holds && s.changed == *a.ifAt
	default:
		return true
	}
}

func (s state) after(a asked, revision uint64) state {
	return state{holds: a.call == "write", value: a.value, changed: revision}
}

// register is the model of one history, in which these revisions are spoken of.
func register(spoken revisions) porcupine.Model {
	model := porcupine.NondeterministicModel{
		Init: func() []any { return []any{state{}} },
		Step: func(s, input, output any) []any {
			var next []any
			for _, one := range spoken.step(s.(state), input.(asked), output.(told)) {
				next = append(next, one)
			}
			return next
		},
		Hash: func(s any) uint64 {
			one := s.(state)
			return (one.value*0x9e3779b97f4a7c15 ^ one.changed) * 0xbf58476d1ce4e5b9
		},
	}
	return model.ToModel()
}

func (r revisions) step(s state, a asked, t told) []state {
	switch {
	case a.call == "end":
		s.ended = true
		return []state{s}
	case a.isUnknown && s.ended:
		// It took effect after everything, or never: nobody can tell.
		return []state{s}
	case a.isUnknown:
		return r.unknown(s, a)
	case a.call == "read":
		if t.answer == "nothing" && !s.holds || t.answer == "holds" && s.holds && s.value == t.held && s.changed == t.revision {
			return []state{s}
		}
	case t.answer == "refused":
		if !s.meets(a) {
			return []state{s}
		}
	case t.answer == "changed":
		if s.meets(a) && t.previous == s.at() && t.revision > s.changed {
			return []state{s.after(a, t.revision)}
		}
	}
	return nil
}

// unknown are the states after an operation that took effect, as which revision nobody knows.
func (r revisions) unknown(s state, a asked) []state {
	if a.call == "read" || !s.meets(a) || a.call == "delete" && !s.holds {
		return nil // without effect: that is after the end
	}
	// No one ever names the revision of a deletion: the least leaves most room for what follows.
	next := []state{s.after(a, s.changed+1)}
	if a.call == "delete" {
		return next
	}
	// The revision of a value may be one that an answer or a condition names, or none of them; of those the least will do.
	for _, revision := range r.named {
		if revision > s.changed+1 {
			next = append(next, s.after(a, revision))
		}
	}
	for revision := s.changed + 1; ; revision++ {
		if _, found := slices.BinarySearch(r.all, revision); !found {
			if revision > s.changed+1 {
				next = append(next, s.after(a, revision))
			}
			return next
		}
	}
}

// revisions are those that a history speaks of, in order.
type revisions struct {
	all   []uint64
	named []uint64 // without those of changes that were answered, which are no others'
}

func spokenOf(history []porcupine.Operation) revisions {
	var r revisions
	var answered []uint64
	for _, operation := range history {
		a, t := operation.Input.(asked), operation.Output.(told)
		r.all = append(r.all, t.revision, t.previous)
		if a.ifAt != nil {
			r.all = append(r.all, *a.ifAt)
		}
		if t.answer == "changed" {
			answered = append(answered, t.revision)
		}
	}
	slices.Sort(r.all)
	r.all = slices.Compact(r.all)
	for _, revision := range r.all {
		if !slices.Contains(answered, revision) {
			r.named = append(r.named, revision)
		}
	}
	return r
}
