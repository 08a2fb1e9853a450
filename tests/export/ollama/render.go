package main

import (
	"encoding/json"
	"io"
	"os"
	"text/template"
)

type question struct {
	Template string
	Values   map[string]any
}

func main() {
	raw, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	var questions []question
	if err := json.Unmarshal(raw, &questions); err != nil {
		panic(err)
	}
	var answers []string
	for _, q := range questions {
		t, err := template.New("").Option("missingkey=zero").Parse(q.Template)
		if err != nil {
			panic(err)
		}
		var b writer
		if err := t.Execute(&b, q.Values); err != nil {
			panic(err)
		}
		answers = append(answers, string(b))
	}
	out, _ := json.Marshal(answers)
	os.Stdout.Write(out)
}

type writer []byte

func (w *writer) Write(p []byte) (int, error) { *w = append(*w, p...); return len(p), nil }
