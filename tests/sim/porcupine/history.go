package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/anishathalye/porcupine"
)

// entry is a line of a manifest.
type entry struct {
	File        string
	History     string   // "seen", "altered" or "made up"
	Alterations []string // what in it is not what was seen
	Verdict     string   // of the checker in Rust
	Why         string
}

// operation is a line of a history.
type operation struct {
	Client, Key, Call  string
	Value              uint64
	IfAbsent           bool    `json:"if_absent"`
	IfRevision         *uint64 `json:"if_revision"`
	Called             int64
	Answered           *int64
	Answer             string
	Held               uint64
	Revision, Previous uint64
}

// manifests finds the files that name the histories.
func manifests(folder string) ([]string, error) {
	return filepath.Glob(filepath.Join(folder, "*", "manifest.jsonl"))
}

// lines reads a file with a JSON object on each line, of which it must know every field.
func lines[T any](path string) ([]T, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	decoder := json.NewDecoder(file)
	decoder.DisallowUnknownFields()
	var all []T
	for decoder.More() {
		var one T
		if err := decoder.Decode(&one); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", path, len(all)+1, err)
		}
		all = append(all, one)
	}
	return all, nil
}

// read gives the history in a file as Porcupine takes it.
func read(path string) ([]porcupine.Operation, error) {
	operations, err := lines[operation](path)
	if err != nil {
		return nil, err
	}
	var history []porcupine.Operation
	last := int64(0)
	for _, it := range operations {
		last = max(last, it.Called)
		if it.Answered != nil {
			last = max(last, *it.Answered)
		}
	}
	for number, it := range operations {
		known, ok := map[string]string{"read": "holds nothing", "write": "changed refused", "delete": "changed refused"}[it.Call]
		if !ok || it.Answered != nil && !strings.Contains(known, it.Answer) {
			return nil, fmt.Errorf("%s: line %d: a %q that is answered %q", path, number+1, it.Call, it.Answer)
		}
		input := asked{call: it.Call, value: it.Value, ifAbsent: it.IfAbsent, ifAt: it.IfRevision, isUnknown: it.Answered == nil}
		output := told{answer: it.Answer, held: it.Held, revision: it.Revision, previous: it.Previous}
		// What is not known goes on after the end.
		end := last + 3
		if it.Answered != nil {
			end = *it.Answered
		}
		history = append(history, porcupine.Operation{ClientId: number, Input: input, Call: it.Called, Output: output, Return: end})
	}
	end := porcupine.Operation{ClientId: len(history), Input: asked{call: "end"}, Call: last + 1, Output: told{}, Return: last + 2}
	return append(history, end), nil
}
