package main

import (
	"testing"

	"github.com/anishathalye/porcupine"
)

// happened is one operation, called and answered where the two numbers say; without an answer it is unknown.
func happened(called int64, a asked, answered int64, t told) porcupine.Operation {
	if t.answer == "" {
		a.isUnknown, answered = true, 1000
	}
	return porcupine.Operation{Input: a, Call: called, Output: t, Return: answered}
}

func write(value uint64) asked { return asked{call: "write", value: value} }

func changed(revision, previous uint64) told {
	return told{answer: "changed", revision: revision, previous: previous}
}

func holds(value, revision uint64) told {
	return told{answer: "holds", held: value, revision: revision}
}

func TestWhatIsLinearizable(t *testing.T) {
	read, remove, at5 := asked{call: "read"}, asked{call: "delete"}, uint64(5)
	refused := told{answer: "refused"}
	first := happened(1, write(1), 2, changed(10, 0))
	for name, test := range map[string]struct {
		history  []porcupine.Operation
		expected bool
	}{
		"one after the other":             {[]porcupine.Operation{first, happened(3, write(2), 4, changed(11, 10)), happened(5, read, 6, holds(2, 11))}, true},
		"a stale read":                    {[]porcupine.Operation{first, happened(3, write(2), 4, changed(11, 10)), happened(5, read, 6, holds(1, 10))}, false},
		"a lost write":                    {[]porcupine.Operation{first, happened(3, read, 4, told{answer: "nothing"})}, false},
		"a condition that did not hold":   {[]porcupine.Operation{first, happened(3, asked{call: "write", value: 2, ifAt: &at5}, 4, changed(11, 10))}, false},
		"a condition that held":           {[]porcupine.Operation{first, happened(3, asked{call: "write", value: 2, ifAbsent: true}, 4, refused)}, true},
		"an unknown write, read":          {[]porcupine.Operation{first, happened(3, write(2), 0, told{}), happened(4, read, 5, holds(2, 12))}, true},
		"an unknown write, never":         {[]porcupine.Operation{first, happened(3, write(2), 0, told{}), happened(4, read, 5, holds(1, 10))}, true},
		"an unknown write, undone":        {[]porcupine.Operation{first, happened(3, write(2), 0, told{}), happened(4, read, 5, holds(2, 12)), happened(6, read, 7, holds(1, 10))}, false},
		"an unknown write at 11":          {[]porcupine.Operation{first, happened(3, write(2), 0, told{}), happened(4, write(3), 5, changed(12, 11))}, true},
		"an unknown write at 9":           {[]porcupine.Operation{first, happened(3, write(2), 0, told{}), happened(4, write(3), 5, changed(12, 9))}, false},
		"an unknown deletion":             {[]porcupine.Operation{first, happened(3, remove, 0, told{}), happened(4, write(3), 5, changed(12, 0))}, true},
		"an unknown deletion, no room":    {[]porcupine.Operation{first, happened(3, remove, 0, told{}), happened(4, write(3), 5, changed(11, 0))}, false},
		"a refusal by what is not known":  {[]porcupine.Operation{happened(1, write(2), 0, told{}), happened(2, asked{call: "write", value: 3, ifAt: &at5}, 3, refused), happened(4, write(4), 5, changed(7, 5))}, true},
		"and what is not known was there": {[]porcupine.Operation{happened(1, write(2), 0, told{}), happened(2, asked{call: "write", value: 5, ifAbsent: true}, 3, refused), happened(4, asked{call: "write", value: 3, ifAt: &at5}, 5, refused), happened(6, write(4), 7, changed(7, 5))}, false},
	} {
		history := append(test.history, porcupine.Operation{Input: asked{call: "end"}, Call: 998, Output: told{}, Return: 999})
		if is := porcupine.CheckOperations(register(spokenOf(history)), history); is != test.expected {
			t.Errorf("%s: linearizable %v, expected %v", name, is, test.expected)
		}
	}
}
