// Oracle answers questions: always the same one in the same way.
package main

import (
	_ "embed"
	"fmt"
	"hash/fnv"
	"os"
	"strings"
)

//go:embed words.txt
var words string

func answer(question string) string {
	answers := strings.Split(strings.TrimSpace(words), "\n")
	sum := fnv.New32a()
	sum.Write([]byte(question))
	return answers[int(sum.Sum32())%len(answers)]
}

func main() {
	fmt.Println(answer(strings.Join(os.Args[1:], " ")))
}
