// Checks histories of registers for linearizability with Porcupine, for comparison with tests/linearizable.ts.
//
// Reads a JSON list of histories from standard input, each a list of operations as tests/chaos/porcupine.ts writes them,
// and prints a JSON list that says of each whether it is linearizable.
package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"

	"github.com/anishathalye/porcupine"
)

// operation is one of a history. A nil pointer stands for a register that holds nothing.
type operation struct {
	Called   float64  `json:"called"`
	Returned *float64 `json:"returned"` // absent: nobody knows whether it took effect
	Kind     string   `json:"kind"`     // read, write or swap
	Value    *string  `json:"value"`    // read, or to be written
	Expected *string  `json:"expected"` // of a swap
	Done     *bool    `json:"done"`     // of a swap; absent: not known
}

func same(a, b *string) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return *a == *b
}

var register = porcupine.Model{
	Init: func() interface{} { return (*string)(nil) },
	Step: func(state, input, output interface{}) (bool, interface{}) {
		held, op := state.(*string), input.(operation)
		switch op.Kind {
		case "read":
			return same(held, op.Value), held
		case "write":
			return true, op.Value
		default:
			fits := same(held, op.Expected)
			if op.Done != nil && *op.Done != fits {
				return false, held
			}
			if fits {
				return true, op.Value
			}
			return true, held
		}
	},
	Equal: func(a, b interface{}) bool { return same(a.(*string), b.(*string)) },
}

func main() {
	var histories [][]operation
	if err := json.NewDecoder(os.Stdin).Decode(&histories); err != nil {
		fmt.Fprintln(os.Stderr, "cannot read histories:", err)
		os.Exit(2)
	}
	verdicts := make([]bool, len(histories))
	for i, history := range histories {
		operations := make([]porcupine.Operation, len(history))
		for j, op := range history {
			returned := int64(math.MaxInt64)
			if op.Returned != nil {
				returned = int64(*op.Returned * 1e6)
			}
			operations[j] = porcupine.Operation{
				ClientId: j, Input: op, Call: int64(op.Called * 1e6), Output: nil, Return: returned,
			}
		}
		verdicts[i] = porcupine.CheckOperations(register, operations)
	}
	if err := json.NewEncoder(os.Stdout).Encode(verdicts); err != nil {
		os.Exit(2)
	}
}
