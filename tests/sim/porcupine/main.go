// Command porcupine checks histories of registers, which `coterie-sim --histories` wrote, with Porcupine, and compares what
// it finds with what the simulator's own checker found. It fails if they differ on one history.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// What the checker in Rust says.
const (
	linearizable    = "linearizable"
	notLinearizable = "not linearizable"
	undecided       = "undecided"
)

// count is how many histories of one kind came to what.
type count struct {
	both, neither, undecided, timedOut, differ int
}

func main() {
	timeout := flag.Duration("timeout", time.Minute, "how long Porcupine may take for one history")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: porcupine [-timeout DURATION] FOLDER")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), *timeout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(folder string, timeout time.Duration) error {
	began := time.Now()
	paths, err := manifests(folder)
	if err != nil {
		return err
	}
	counts := map[string]*count{}
	for _, path := range paths {
		entries, err := lines[entry](path)
		if err != nil {
			return err
		}
		for _, one := range entries {
			file := filepath.Join(filepath.Dir(path), one.File)
			history, err := read(file)
			if err != nil {
				return err
			}
			found := porcupine.CheckOperationsTimeout(register(spokenOf(history)), history, timeout)
			kinds := []string{one.History}
			for _, alteration := range one.Alterations {
				kinds = append(kinds, "  with "+alteration)
			}
			slices.Sort(kinds)
			for _, kind := range slices.Compact(kinds) {
				if counts[kind] == nil {
					counts[kind] = &count{}
				}
				counts[kind].add(one.Verdict, found)
			}
			if found == porcupine.Unknown {
				fmt.Printf("TIME-OUT after %s: %s %v, which the simulator found %s\n", timeout, file, one.Alterations, one.Verdict)
			}
			if differs(one.Verdict, found) {
				fmt.Printf("DIFFERENT %s %v\n  the simulator: %s %s\n  Porcupine: %s\n", file, one.Alterations, one.Verdict, one.Why, found)
			}
		}
	}
	return report(counts, len(paths), time.Since(began))
}

func differs(verdict string, found porcupine.CheckResult) bool {
	return verdict == linearizable && found == porcupine.Illegal || verdict == notLinearizable && found == porcupine.Ok
}

func (c *count) add(verdict string, found porcupine.CheckResult) {
	switch {
	case differs(verdict, found):
		c.differ++
	case found == porcupine.Unknown:
		c.timedOut++
	case verdict == undecided:
		c.undecided++
	case found == porcupine.Ok:
		c.both++
	default:
		c.neither++
	}
}

// report prints the counts. An error is a difference, or nothing to find one in.
func report(counts map[string]*count, seeds int, took time.Duration) error {
	fmt.Printf("%-28s%10s%10s%12s%10s%8s\n", "histories", "both ok", "both not", "simulator ?", "time-outs", "differ")
	line := func(kind string, c count) {
		fmt.Printf("%-28s%10d%10d%12d%10d%8d\n", kind, c.both, c.neither, c.undecided, c.timedOut, c.differ)
	}
	var kinds []string
	for kind := range counts {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	all := count{}
	for _, kind := range kinds {
		c := *counts[kind]
		line(kind, c)
		if kind[0] != ' ' {
			all = count{all.both + c.both, all.neither + c.neither, all.undecided + c.undecided, all.timedOut + c.timedOut, all.differ + c.differ}
		}
	}
	line("all", all)
	fmt.Printf("%d seeds in %.1f s\n", seeds, took.Seconds())
	switch {
	case all.differ > 0:
		return fmt.Errorf("%d histories on which the checkers differ", all.differ)
	case all.both == 0 || all.neither == 0:
		return fmt.Errorf("no histories that both accept, or none that both refuse: this shows nothing")
	}
	return nil
}
